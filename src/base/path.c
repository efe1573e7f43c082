/* Path arithmetic of base/io.h. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/memory.h"
#include "base/text.h"

char *thaw_path_join(const char *folder, const char *name) {
    const size_t length = strlen(folder);
    if (*name == '/' || length == 0)
        return thaw_strdup(name);
    return thaw_format("%s%s%s", folder, folder[length - 1] == '/' ? "" : "/", name);
}

char *thaw_path_dirname(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') /* slashes behind the last name */
        end--;
    while (end > 0 && path[end - 1] != '/') /* the last name */
        end--;
    while (end > 1 && path[end - 1] == '/') /* slashes before it */
        end--;
    return end == 0 ? thaw_strdup(".") : thaw_strndup(path, end);
}

char *thaw_path_real(const char *path) {
    char *real = realpath(path, NULL), *copy = thaw_strdup(real ? real : path);
    free(real);
    return copy;
}

/* Appends the value of the variable whose name starts at `at`; [out] next: behind it. */
static thaw_status put_variable(thaw_buffer *text, const char *at, const char **next, const char *path) {
    const bool braces = *at == '{';
    const char *name = at + braces;
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || name[length] == '_')
        length++;
    if (braces && (length == 0 || name[length] != '}'))
        return thaw_fail(THAW_USAGE, "path '%s': '${' is not followed by a name and '}'; write ${NAME}", path);
    char *key = thaw_strndup(name, length);
    const char *value = key ? getenv(key) : NULL;
    thaw_status status = THAW_OK;
    if (!key)
        text->failed = true;
    else if (!value)
        status = thaw_fail(THAW_USAGE, "path '%s': the environment variable %s is not set; set it or write the path "
                           "in full", path, key);
    else
        thaw_buffer_put(text, value, strlen(value));
    thaw_free(key);
    *next = name + length + braces;
    return status;
}

thaw_status thaw_path_expand(char **out, const char *path) {
    *out = NULL;
    thaw_buffer text = {0};
    const char *at = path;
    thaw_status status = THAW_OK;
    if (*at == '~') {
        const char *home = getenv("HOME");
        if (at[1] && at[1] != '/')
            return thaw_fail(THAW_USAGE, "path '%s': only ~ alone stands for a home folder; write the path in full, or "
                             "./%s for a file of this name", path, path);
        if (!home || !*home)
            return thaw_fail(THAW_USAGE, "path '%s': HOME is not set; set it or write the path in full", path);
        thaw_buffer_put(&text, home, strlen(home));
        at++;
    }
    while (*at && status == THAW_OK) {
        const bool variable = *at == '$' && (at[1] == '{' || at[1] == '_' || isalpha((unsigned char)at[1]));
        if (variable)
            status = put_variable(&text, at + 1, &at, path);
        else
            thaw_buffer_put(&text, at++, 1);
    }
    thaw_buffer_put(&text, "", 0); /* an empty path is an empty string */
    if (status == THAW_OK && text.failed)
        status = thaw_fail(THAW_RESOURCE, "path '%s': not enough memory to expand it", path);
    if (status == THAW_OK)
        *out = text.data;
    else
        thaw_buffer_free(&text);
    return status;
}
