/* The header alone, first and twice: it must need nothing included before it, and guard itself. Linked and run by ci/ctest. */
#include "castkeep.h"
#include "castkeep.h"

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

int main(void)
{
    char text[32];
    unsigned long num = CASTKEEP_VERSION_NUM;
    castkeep_status status = CASTKEEP_STATUS_WOULD_BLOCK;

    check(castkeep_version_num() == CASTKEEP_VERSION_NUM, "header and library are the same version");
    sprintf(text, "%lu.%lu.%lu", num >> 16 & 255, num >> 8 & 255, num & 255);
    check(strcmp(castkeep_version(), text) == 0, "the number and the text say the same version");
    check(castkeep_has(CASTKEEP_CAP_TLS) == 0 || castkeep_has(CASTKEEP_CAP_TLS) == 1, "has answers 0 or 1");
    check(castkeep_has(CASTKEEP_CAP_HTTP2) == 0 || castkeep_has(CASTKEEP_CAP_HTTP2) == 1, "has answers 0 or 1");
    check(castkeep_has(12345) == 0, "an unknown capability is not there");
    check(strcmp(castkeep_status_str(CASTKEEP_STATUS_OK), "ok") == 0, "status 0 is ok");
    check(strcmp(castkeep_status_str(status), "unknown status") != 0, "a known status has a text");
    check(strcmp(castkeep_status_str(4711), "unknown status") == 0, "an unknown status is called so");
    return failed;
}
