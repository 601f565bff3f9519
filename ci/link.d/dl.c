/* A daemon built without libcastkeep: it refuses while there is none, and records when there is. Run by ci/link. */
#define CASTKEEP_DL_IMPLEMENTATION
#include <castkeep_dl.h>

#include <stdio.h>
#include <string.h>

static int failed;

static void check(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s\n", what);
        failed = 1;
    }
}

int main(int argc, char **argv)
{
    castkeep_config *config = (castkeep_config *)argv;
    castkeep_client *client = (castkeep_client *)argv;
    castkeep_session *session = (castkeep_session *)argv;
    char why[64] = "";
    if (argc != 3)
        return 2;
    check(castkeep_version_num() == 0, "without a library there is no version");
    check(castkeep_dl_load("/nonexistent/libcastkeep.so") == CASTKEEP_STATUS_UNSUPPORTED, "an absent library is refused");
    check(strstr(castkeep_dl_error(), "nonexistent") != NULL, "the reason names the file");
    check(castkeep_has(CASTKEEP_CAP_TLS) == 0, "without a library there is no TLS");
    check(strcmp(castkeep_status_str(CASTKEEP_STATUS_OK), "castkeep is not installed") == 0, "texts say what is wrong");
    /* Whoever must record treats failures as refusals: nothing here may look like success. */
    check(castkeep_config_new() == NULL, "without a library there is no configuration");
    check(castkeep_config_load("x", 1, why, sizeof why, &config) == CASTKEEP_STATUS_UNSUPPORTED && config == NULL, "no file is read");
    check(strcmp(why, "castkeep is not installed") == 0, "the reason is told");
    check(castkeep_client_new(NULL, CASTKEEP_DRIVER_POLLED, &client) == CASTKEEP_STATUS_UNSUPPORTED && client == NULL, "there is no client");
    check(castkeep_client_fd(NULL) == -1, "there is no descriptor");
    check(castkeep_session_new(NULL, &session) == CASTKEEP_STATUS_UNSUPPORTED && session == NULL, "there is no session");
    check(castkeep_session_open(NULL) == CASTKEEP_STATUS_UNSUPPORTED, "nothing opens");
    check(castkeep_session_wait_start(NULL, 0) == CASTKEEP_STATUS_UNSUPPORTED, "nothing starts");
    check(castkeep_session_room(NULL) == 0, "there is no room");
    check(castkeep_session_output(NULL, CASTKEEP_STDOUT, NULL, 0) == CASTKEEP_STATUS_UNSUPPORTED, "nothing is taken");
    check(castkeep_session_close(NULL, 0) == CASTKEEP_STATUS_UNSUPPORTED, "nothing is stored");
    check(castkeep_dl_load(argv[2]) == CASTKEEP_STATUS_UNSUPPORTED, "a library that is not castkeep is refused");
    check(strstr(castkeep_dl_error(), "castkeep_") != NULL, "the reason names a function");
    check(castkeep_version_num() == 0, "nothing of it is used");
    check(castkeep_dl_load(argv[1]) == CASTKEEP_STATUS_OK, castkeep_dl_error());
    check(castkeep_dl_error()[0] == '\0', "no reason is left");
    check(castkeep_version_num() == CASTKEEP_VERSION_NUM, "the library is the one that the header describes");
    check(strcmp(castkeep_status_str(CASTKEEP_STATUS_OK), "ok") == 0, "calls reach the library");
    if (!failed)
        puts("went on");
    return failed;
}
