/* castkeep, found at run time: a program that includes this needs neither Rust nor libcastkeep to be built, and uses
 * libcastkeep.so when it is installed where the program runs.
 *
 * Generated from castkeep.h by ci/header; changes belong there.
 *
 * Include this in place of castkeep.h, in every file; in one of them, write `#define CASTKEEP_DL_IMPLEMENTATION` before it.
 * Call castkeep_dl_load once at start, before there are threads. Then every function of castkeep.h is called as it is
 * documented there. Link with -ldl where the C library wants that.
 *
 * Until the library is loaded, and when it cannot be, each function answers as a failure: a status is UNSUPPORTED, a handle is
 * NULL, room is 0, a descriptor is -1. So a program that must record and treats every failure as a refusal refuses, without a
 * line for this case; one that may go on without recording looks at what castkeep_dl_load returned.
 */
#ifndef CASTKEEP_DL_H
#define CASTKEEP_DL_H

#include <stddef.h>
#include "castkeep.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The library that this header describes. */
#define CASTKEEP_DL_SONAME "libcastkeep.so.0.1"

/* Finds the library and every function in it.
 * path     : the file; NULL for CASTKEEP_DL_SONAME in the system's directories
 * Returns  : OK; UNSUPPORTED: it is not there, is of another version, or lacks a function; castkeep_dl_error says which
 * Threads  : one, before all other calls.   Blocks: for reading a file.   Since: 0.1 */
castkeep_status castkeep_dl_load(const char *path);

/* Why castkeep_dl_load failed, in one line.
 * Returns  : a static string, empty when it did not
 * Threads  : as castkeep_dl_load.   Blocks: never.   Since: 0.1 */
const char *castkeep_dl_error(void);

/* Filled by castkeep_dl_load; of no use to others. */
struct castkeep_dl_table {
    uint32_t (*castkeep_version_num)(void);
    const char *(*castkeep_version)(void);
    int32_t (*castkeep_has)(int32_t cap);
    const char *(*castkeep_status_str)(int32_t status);
};
extern struct castkeep_dl_table castkeep_dl_calls;

#ifdef CASTKEEP_DL_IMPLEMENTATION

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static uint32_t castkeep_dl_no_version_num(void)
{
    return 0;
}

static const char *castkeep_dl_no_version(void)
{
    return "castkeep is not installed";
}

static int32_t castkeep_dl_no_has(int32_t cap)
{
    (void)cap;
    return 0;
}

static const char *castkeep_dl_no_status_str(int32_t status)
{
    (void)status;
    return "castkeep is not installed";
}

struct castkeep_dl_table castkeep_dl_calls = {
    castkeep_dl_no_version_num,
    castkeep_dl_no_version,
    castkeep_dl_no_has,
    castkeep_dl_no_status_str,
};

static char castkeep_dl_why[256];

const char *castkeep_dl_error(void)
{
    return castkeep_dl_why;
}

static castkeep_status castkeep_dl_fail(void *library, const char *what, const char *more)
{
    snprintf(castkeep_dl_why, sizeof castkeep_dl_why, "%s%s%s", what, *more ? ": " : "", more);
    if (library != NULL)
        dlclose(library);
    return CASTKEEP_STATUS_UNSUPPORTED;
}

/* C has no cast between the two kinds of pointer. */
#define CASTKEEP_DL_FIND(name)                                              \
    do {                                                                    \
        void *found = dlsym(library, #name);                                \
        if (found == NULL)                                                  \
            return castkeep_dl_fail(library, "the library lacks " #name, ""); \
        memcpy(&calls.name, &found, sizeof found);                          \
    } while (0)

castkeep_status castkeep_dl_load(const char *path)
{
    struct castkeep_dl_table calls;
    void *library = dlopen(path != NULL ? path : CASTKEEP_DL_SONAME, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        const char *why = dlerror();
        return castkeep_dl_fail(NULL, "the library cannot be loaded", why != NULL ? why : "");
    }
    CASTKEEP_DL_FIND(castkeep_version_num);
    CASTKEEP_DL_FIND(castkeep_version);
    CASTKEEP_DL_FIND(castkeep_has);
    CASTKEEP_DL_FIND(castkeep_status_str);
    if (calls.castkeep_version_num() >> 8 != CASTKEEP_VERSION_NUM >> 8)
        return castkeep_dl_fail(library, "the library is of another version", calls.castkeep_version());
    castkeep_dl_calls = calls;
    castkeep_dl_why[0] = '\0';
    return CASTKEEP_STATUS_OK;
}

#undef CASTKEEP_DL_FIND
#endif /* CASTKEEP_DL_IMPLEMENTATION */

#ifdef __cplusplus
}
#endif

#define castkeep_version_num castkeep_dl_calls.castkeep_version_num
#define castkeep_version castkeep_dl_calls.castkeep_version
#define castkeep_has castkeep_dl_calls.castkeep_has
#define castkeep_status_str castkeep_dl_calls.castkeep_status_str
#endif /* CASTKEEP_DL_H */
