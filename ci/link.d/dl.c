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
    if (argc != 3)
        return 2;
    check(castkeep_version_num() == 0, "without a library there is no version");
    check(castkeep_dl_load("/nonexistent/libcastkeep.so") == CASTKEEP_STATUS_UNSUPPORTED, "an absent library is refused");
    check(strstr(castkeep_dl_error(), "nonexistent") != NULL, "the reason names the file");
    check(castkeep_has(CASTKEEP_CAP_TLS) == 0, "without a library there is no TLS");
    check(strcmp(castkeep_status_str(CASTKEEP_STATUS_OK), "castkeep is not installed") == 0, "texts say what is wrong");
#ifdef CASTKEEP_DL_TEST_REFUSES
    CASTKEEP_DL_TEST_REFUSES
#endif
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
