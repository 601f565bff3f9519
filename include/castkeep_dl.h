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
    struct castkeep_config *(*castkeep_config_new)(void);
    int32_t (*castkeep_config_load)(const char *path, size_t len, char *why, size_t cap, struct castkeep_config **config);
    void (*castkeep_config_free)(struct castkeep_config *config);
    int32_t (*castkeep_config_add_recorder)(struct castkeep_config *config, const char *address, size_t len);
    int32_t (*castkeep_config_add_recorder_named)(struct castkeep_config *config, const char *address, size_t len, const char *name, size_t name_len);
    int32_t (*castkeep_config_add_recorder_host)(struct castkeep_config *config, const char *host, size_t len);
    int32_t (*castkeep_config_set_bytes)(struct castkeep_config *config, int32_t option, const uint8_t *data, size_t len);
    int32_t (*castkeep_config_check)(const struct castkeep_config *config, char *why, size_t cap);
    int32_t (*castkeep_config_set_text)(struct castkeep_config *config, int32_t option, const char *data, size_t len);
    int32_t (*castkeep_config_set_number)(struct castkeep_config *config, int32_t option, uint64_t value);
    int32_t (*castkeep_config_set_log)(struct castkeep_config *config, castkeep_log_fn function, void *user);
    int32_t (*castkeep_config_set_dial)(struct castkeep_config *config, castkeep_dial_fn function, void *user);
    int32_t (*castkeep_config_set_transport)(struct castkeep_config *config, const struct castkeep_transport *table, void *user);
    int32_t (*castkeep_client_new)(const struct castkeep_config *config, int32_t driver, struct castkeep_client **client);
    int (*castkeep_client_fd)(const struct castkeep_client *client);
    int32_t (*castkeep_client_process)(struct castkeep_client *client);
    int32_t (*castkeep_client_dialed)(struct castkeep_client *client, uint64_t ticket, int fd);
    int32_t (*castkeep_client_next_event)(struct castkeep_client *client, int32_t *event, struct castkeep_session **session);
    void (*castkeep_client_free)(struct castkeep_client *client);
    int32_t (*castkeep_session_new)(struct castkeep_client *client, struct castkeep_session **session);
    int32_t (*castkeep_session_set_text)(struct castkeep_session *session, int32_t what, const char *data, size_t len);
    int32_t (*castkeep_session_open)(struct castkeep_session *session);
    int32_t (*castkeep_session_wait_start)(struct castkeep_session *session, uint32_t timeout_ms);
    size_t (*castkeep_session_room)(const struct castkeep_session *session);
    int32_t (*castkeep_session_output)(struct castkeep_session *session, int32_t from, const uint8_t *data, size_t len);
    int32_t (*castkeep_session_input)(struct castkeep_session *session, const uint8_t *data, size_t len);
    int32_t (*castkeep_session_resize)(struct castkeep_session *session, uint16_t cols, uint16_t rows);
    int32_t (*castkeep_session_marker)(struct castkeep_session *session, const char *data, size_t len);
    uint64_t (*castkeep_session_released)(const struct castkeep_session *session, int32_t of);
    size_t (*castkeep_session_message)(const struct castkeep_session *session, char *buf, size_t cap);
    size_t (*castkeep_session_recording)(const struct castkeep_session *session, char *buf, size_t cap);
    int32_t (*castkeep_session_stats)(const struct castkeep_session *session, struct castkeep_stats *stats);
    int32_t (*castkeep_session_exit)(struct castkeep_session *session, int32_t how, int32_t value);
    int32_t (*castkeep_session_finish)(struct castkeep_session *session);
    int32_t (*castkeep_session_close)(struct castkeep_session *session, uint32_t timeout_ms);
    void (*castkeep_session_free)(struct castkeep_session *session);
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

static struct castkeep_config *castkeep_dl_no_config_new(void)
{
    return NULL;
}

static int32_t castkeep_dl_no_config_load(const char *path, size_t len, char *why, size_t cap, struct castkeep_config **config)
{
    (void)path;
    (void)len;
    (void)why;
    (void)cap;
    (void)config;
    if (config) *config = NULL;
    if (why && cap > 0) snprintf(why, cap, "%s", "castkeep is not installed");
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static void castkeep_dl_no_config_free(struct castkeep_config *config)
{
    (void)config;
}

static int32_t castkeep_dl_no_config_add_recorder(struct castkeep_config *config, const char *address, size_t len)
{
    (void)config;
    (void)address;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_add_recorder_named(struct castkeep_config *config, const char *address, size_t len, const char *name, size_t name_len)
{
    (void)config;
    (void)address;
    (void)len;
    (void)name;
    (void)name_len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_add_recorder_host(struct castkeep_config *config, const char *host, size_t len)
{
    (void)config;
    (void)host;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_bytes(struct castkeep_config *config, int32_t option, const uint8_t *data, size_t len)
{
    (void)config;
    (void)option;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_check(const struct castkeep_config *config, char *why, size_t cap)
{
    (void)config;
    (void)why;
    (void)cap;
    if (why && cap > 0) snprintf(why, cap, "%s", "castkeep is not installed");
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_text(struct castkeep_config *config, int32_t option, const char *data, size_t len)
{
    (void)config;
    (void)option;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_number(struct castkeep_config *config, int32_t option, uint64_t value)
{
    (void)config;
    (void)option;
    (void)value;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_log(struct castkeep_config *config, castkeep_log_fn function, void *user)
{
    (void)config;
    (void)function;
    (void)user;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_dial(struct castkeep_config *config, castkeep_dial_fn function, void *user)
{
    (void)config;
    (void)function;
    (void)user;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_config_set_transport(struct castkeep_config *config, const struct castkeep_transport *table, void *user)
{
    (void)config;
    (void)table;
    (void)user;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_client_new(const struct castkeep_config *config, int32_t driver, struct castkeep_client **client)
{
    (void)config;
    (void)driver;
    (void)client;
    if (client) *client = NULL;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int castkeep_dl_no_client_fd(const struct castkeep_client *client)
{
    (void)client;
    return -1;
}

static int32_t castkeep_dl_no_client_process(struct castkeep_client *client)
{
    (void)client;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_client_dialed(struct castkeep_client *client, uint64_t ticket, int fd)
{
    (void)client;
    (void)ticket;
    (void)fd;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_client_next_event(struct castkeep_client *client, int32_t *event, struct castkeep_session **session)
{
    (void)client;
    (void)event;
    (void)session;
    if (session) *session = NULL;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static void castkeep_dl_no_client_free(struct castkeep_client *client)
{
    (void)client;
}

static int32_t castkeep_dl_no_session_new(struct castkeep_client *client, struct castkeep_session **session)
{
    (void)client;
    (void)session;
    if (session) *session = NULL;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_set_text(struct castkeep_session *session, int32_t what, const char *data, size_t len)
{
    (void)session;
    (void)what;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_open(struct castkeep_session *session)
{
    (void)session;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_wait_start(struct castkeep_session *session, uint32_t timeout_ms)
{
    (void)session;
    (void)timeout_ms;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static size_t castkeep_dl_no_session_room(const struct castkeep_session *session)
{
    (void)session;
    return 0;
}

static int32_t castkeep_dl_no_session_output(struct castkeep_session *session, int32_t from, const uint8_t *data, size_t len)
{
    (void)session;
    (void)from;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_input(struct castkeep_session *session, const uint8_t *data, size_t len)
{
    (void)session;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_resize(struct castkeep_session *session, uint16_t cols, uint16_t rows)
{
    (void)session;
    (void)cols;
    (void)rows;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_marker(struct castkeep_session *session, const char *data, size_t len)
{
    (void)session;
    (void)data;
    (void)len;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static uint64_t castkeep_dl_no_session_released(const struct castkeep_session *session, int32_t of)
{
    (void)session;
    (void)of;
    return 0;
}

static size_t castkeep_dl_no_session_message(const struct castkeep_session *session, char *buf, size_t cap)
{
    (void)session;
    (void)buf;
    (void)cap;
    return 0;
}

static size_t castkeep_dl_no_session_recording(const struct castkeep_session *session, char *buf, size_t cap)
{
    (void)session;
    (void)buf;
    (void)cap;
    return 0;
}

static int32_t castkeep_dl_no_session_stats(const struct castkeep_session *session, struct castkeep_stats *stats)
{
    (void)session;
    (void)stats;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_exit(struct castkeep_session *session, int32_t how, int32_t value)
{
    (void)session;
    (void)how;
    (void)value;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_finish(struct castkeep_session *session)
{
    (void)session;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static int32_t castkeep_dl_no_session_close(struct castkeep_session *session, uint32_t timeout_ms)
{
    (void)session;
    (void)timeout_ms;
    return CASTKEEP_STATUS_UNSUPPORTED;
}

static void castkeep_dl_no_session_free(struct castkeep_session *session)
{
    (void)session;
}

struct castkeep_dl_table castkeep_dl_calls = {
    castkeep_dl_no_version_num,
    castkeep_dl_no_version,
    castkeep_dl_no_has,
    castkeep_dl_no_status_str,
    castkeep_dl_no_config_new,
    castkeep_dl_no_config_load,
    castkeep_dl_no_config_free,
    castkeep_dl_no_config_add_recorder,
    castkeep_dl_no_config_add_recorder_named,
    castkeep_dl_no_config_add_recorder_host,
    castkeep_dl_no_config_set_bytes,
    castkeep_dl_no_config_check,
    castkeep_dl_no_config_set_text,
    castkeep_dl_no_config_set_number,
    castkeep_dl_no_config_set_log,
    castkeep_dl_no_config_set_dial,
    castkeep_dl_no_config_set_transport,
    castkeep_dl_no_client_new,
    castkeep_dl_no_client_fd,
    castkeep_dl_no_client_process,
    castkeep_dl_no_client_dialed,
    castkeep_dl_no_client_next_event,
    castkeep_dl_no_client_free,
    castkeep_dl_no_session_new,
    castkeep_dl_no_session_set_text,
    castkeep_dl_no_session_open,
    castkeep_dl_no_session_wait_start,
    castkeep_dl_no_session_room,
    castkeep_dl_no_session_output,
    castkeep_dl_no_session_input,
    castkeep_dl_no_session_resize,
    castkeep_dl_no_session_marker,
    castkeep_dl_no_session_released,
    castkeep_dl_no_session_message,
    castkeep_dl_no_session_recording,
    castkeep_dl_no_session_stats,
    castkeep_dl_no_session_exit,
    castkeep_dl_no_session_finish,
    castkeep_dl_no_session_close,
    castkeep_dl_no_session_free,
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
    CASTKEEP_DL_FIND(castkeep_config_new);
    CASTKEEP_DL_FIND(castkeep_config_load);
    CASTKEEP_DL_FIND(castkeep_config_free);
    CASTKEEP_DL_FIND(castkeep_config_add_recorder);
    CASTKEEP_DL_FIND(castkeep_config_add_recorder_named);
    CASTKEEP_DL_FIND(castkeep_config_add_recorder_host);
    CASTKEEP_DL_FIND(castkeep_config_set_bytes);
    CASTKEEP_DL_FIND(castkeep_config_check);
    CASTKEEP_DL_FIND(castkeep_config_set_text);
    CASTKEEP_DL_FIND(castkeep_config_set_number);
    CASTKEEP_DL_FIND(castkeep_config_set_log);
    CASTKEEP_DL_FIND(castkeep_config_set_dial);
    CASTKEEP_DL_FIND(castkeep_config_set_transport);
    CASTKEEP_DL_FIND(castkeep_client_new);
    CASTKEEP_DL_FIND(castkeep_client_fd);
    CASTKEEP_DL_FIND(castkeep_client_process);
    CASTKEEP_DL_FIND(castkeep_client_dialed);
    CASTKEEP_DL_FIND(castkeep_client_next_event);
    CASTKEEP_DL_FIND(castkeep_client_free);
    CASTKEEP_DL_FIND(castkeep_session_new);
    CASTKEEP_DL_FIND(castkeep_session_set_text);
    CASTKEEP_DL_FIND(castkeep_session_open);
    CASTKEEP_DL_FIND(castkeep_session_wait_start);
    CASTKEEP_DL_FIND(castkeep_session_room);
    CASTKEEP_DL_FIND(castkeep_session_output);
    CASTKEEP_DL_FIND(castkeep_session_input);
    CASTKEEP_DL_FIND(castkeep_session_resize);
    CASTKEEP_DL_FIND(castkeep_session_marker);
    CASTKEEP_DL_FIND(castkeep_session_released);
    CASTKEEP_DL_FIND(castkeep_session_message);
    CASTKEEP_DL_FIND(castkeep_session_recording);
    CASTKEEP_DL_FIND(castkeep_session_stats);
    CASTKEEP_DL_FIND(castkeep_session_exit);
    CASTKEEP_DL_FIND(castkeep_session_finish);
    CASTKEEP_DL_FIND(castkeep_session_close);
    CASTKEEP_DL_FIND(castkeep_session_free);
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
#define castkeep_config_new castkeep_dl_calls.castkeep_config_new
#define castkeep_config_load castkeep_dl_calls.castkeep_config_load
#define castkeep_config_free castkeep_dl_calls.castkeep_config_free
#define castkeep_config_add_recorder castkeep_dl_calls.castkeep_config_add_recorder
#define castkeep_config_add_recorder_named castkeep_dl_calls.castkeep_config_add_recorder_named
#define castkeep_config_add_recorder_host castkeep_dl_calls.castkeep_config_add_recorder_host
#define castkeep_config_set_bytes castkeep_dl_calls.castkeep_config_set_bytes
#define castkeep_config_check castkeep_dl_calls.castkeep_config_check
#define castkeep_config_set_text castkeep_dl_calls.castkeep_config_set_text
#define castkeep_config_set_number castkeep_dl_calls.castkeep_config_set_number
#define castkeep_config_set_log castkeep_dl_calls.castkeep_config_set_log
#define castkeep_config_set_dial castkeep_dl_calls.castkeep_config_set_dial
#define castkeep_config_set_transport castkeep_dl_calls.castkeep_config_set_transport
#define castkeep_client_new castkeep_dl_calls.castkeep_client_new
#define castkeep_client_fd castkeep_dl_calls.castkeep_client_fd
#define castkeep_client_process castkeep_dl_calls.castkeep_client_process
#define castkeep_client_dialed castkeep_dl_calls.castkeep_client_dialed
#define castkeep_client_next_event castkeep_dl_calls.castkeep_client_next_event
#define castkeep_client_free castkeep_dl_calls.castkeep_client_free
#define castkeep_session_new castkeep_dl_calls.castkeep_session_new
#define castkeep_session_set_text castkeep_dl_calls.castkeep_session_set_text
#define castkeep_session_open castkeep_dl_calls.castkeep_session_open
#define castkeep_session_wait_start castkeep_dl_calls.castkeep_session_wait_start
#define castkeep_session_room castkeep_dl_calls.castkeep_session_room
#define castkeep_session_output castkeep_dl_calls.castkeep_session_output
#define castkeep_session_input castkeep_dl_calls.castkeep_session_input
#define castkeep_session_resize castkeep_dl_calls.castkeep_session_resize
#define castkeep_session_marker castkeep_dl_calls.castkeep_session_marker
#define castkeep_session_released castkeep_dl_calls.castkeep_session_released
#define castkeep_session_message castkeep_dl_calls.castkeep_session_message
#define castkeep_session_recording castkeep_dl_calls.castkeep_session_recording
#define castkeep_session_stats castkeep_dl_calls.castkeep_session_stats
#define castkeep_session_exit castkeep_dl_calls.castkeep_session_exit
#define castkeep_session_finish castkeep_dl_calls.castkeep_session_finish
#define castkeep_session_close castkeep_dl_calls.castkeep_session_close
#define castkeep_session_free castkeep_dl_calls.castkeep_session_free
#endif /* CASTKEEP_DL_H */
