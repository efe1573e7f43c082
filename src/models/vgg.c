/* VGG (Simonyan and Zisserman 2014): keras.applications.VGG16 and VGG19. */
#include <stdio.h>

#include "models/builder.h"

int thaw_vgg_build(thaw_builder *b, const thaw_network_options *options, const int blocks[5]) {
    static const int64_t filters[5] = {64, 128, 256, 512, 512};
    char name[48];
    int x = thaw_builder_input(b, options->input);
    for (int block = 0; block < 5; block++) {
        for (int i = 0; i < blocks[block]; i++) {
            snprintf(name, sizeof name, "block%d_conv%d", block + 1, i + 1);
            x = thaw_builder_conv(b, x, name, filters[block], 3, 3, 1, true, true, THAW_ACTIVATION_RELU);
        }
        snprintf(name, sizeof name, "block%d_pool", block + 1);
        x = thaw_builder_pool(b, x, THAW_LAYER_MAX_POOLING, name, 2, 2, false);
    }
    if (options->top) {
        x = thaw_builder_plain(b, x, THAW_LAYER_FLATTEN, "flatten");
        x = thaw_builder_dense(b, x, "fc1", 4096, THAW_ACTIVATION_RELU);
        x = thaw_builder_dense(b, x, "fc2", 4096, THAW_ACTIVATION_RELU);
        return thaw_builder_dense(b, x, "predictions", THAW_IMAGENET_CLASSES, THAW_ACTIVATION_SOFTMAX);
    }
    return thaw_builder_pooling(b, x, options->pooling, "global_average_pooling2d", "global_max_pooling2d");
}
