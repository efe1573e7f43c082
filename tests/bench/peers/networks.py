"""Networks and plans of the comparison. A plan is what trains: none (forward only), head, late block, everything."""

NETWORKS = {  # name: thaw's name, builder of keras.applications, size, first layer of the late block (None: not asked)
    "vgg16-224": ("vgg16", "VGG16", 224, "block5_conv1"),
    "vgg16-150": ("vgg16", "VGG16", 150, "block5_conv1"),
    "resnet50-224": ("resnet50", "ResNet50", 224, "conv5_block1_1_conv"),
    "inceptionv3-299": ("inceptionv3", "InceptionV3", 299, None),
}
PLANS = ("forward", "head", "late", "everything")
CLASSES = 10


def plans_of(network):
    return [p for p in PLANS if p != "late" or NETWORKS[network][3]]


def serve(prepare):
    """The loop of a peer process: "NETWORK PLAN BATCH" prepares and answers "ready", "go" answers seconds of one run."""
    import sys
    import time
    once = None
    for line in sys.stdin:
        words = line.split()
        if words == ["go"]:
            began = time.perf_counter()
            once()
            print("%.9f" % (time.perf_counter() - began), flush=True)
        else:
            once = None
            once = prepare(words[0], words[1], int(words[2]))
            once()
            once()
            print("ready", flush=True)
