/* castkeep: session recording for SSH, from inside the SSH server.
 *
 * Generated from ffi/src by ci/header; changes belong there.
 *
 * What is here: the version, what this build can do, and the text of each status. The calls that
 * record a session are not in this version of the header; Rust programs have them in castkeep::client.
 *
 * Every function may be called from any thread, before and after fork, and never blocks. Strings that
 * are returned are static, end in NUL, and are not freed. Nothing here touches standard input or
 * output, signals, the locale or any other state of the process.
 *
 * Compare CASTKEEP_VERSION_NUM with castkeep_version_num() once at start: they differ when the library
 * that was loaded is not the one that this header describes.
 */


#ifndef CASTKEEP_H
#define CASTKEEP_H

#include <stdint.h>

/*
 The version that this header describes, 0xMMmmpp: major, minor and patch in one byte each.
 */
#define CASTKEEP_VERSION_NUM 256

/*
 For castkeep_has: HTTP/2, which recorders of the stock protocol's version 2 need.
 */
#define CASTKEEP_CAP_HTTP2 1

/*
 For castkeep_has: TLS of the library's own.
 */
#define CASTKEEP_CAP_TLS 2

/*
 What a call returns: 0, or a negative number. The families are ranges: -1 to -99 the caller's fault
 or a matter of waiting, -100 to -199 the connection, -200 to -299 the recorder, -900 and below
 fatal. Numbers are never given a second meaning.
 */
enum castkeep_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Done.
   */
  CASTKEEP_STATUS_OK = 0,
  /*
   A parameter is outside of what is documented.
   */
  CASTKEEP_STATUS_BAD_PARAMETER = -1,
  /*
   The call does not belong into this state.
   */
  CASTKEEP_STATUS_WRONG_STATE = -2,
  /*
   Not in this build; see castkeep_has.
   */
  CASTKEEP_STATUS_UNSUPPORTED = -3,
  /*
   No room now.
   */
  CASTKEEP_STATUS_WOULD_BLOCK = -4,
  /*
   Larger than its limit.
   */
  CASTKEEP_STATUS_TOO_BIG = -5,
  /*
   Closed, or ended.
   */
  CASTKEEP_STATUS_CLOSED = -6,
  /*
   The connection was lost or could not be made.
   */
  CASTKEEP_STATUS_LINK = -100,
  /*
   A deadline passed.
   */
  CASTKEEP_STATUS_TIMED_OUT = -101,
  /*
   The recorder broke the protocol, or refused.
   */
  CASTKEEP_STATUS_RECORDER = -200,
  /*
   Memory could not be reserved.
   */
  CASTKEEP_STATUS_NO_MEMORY = -900,
  /*
   A fault in castkeep itself; please report it.
   */
  CASTKEEP_STATUS_INTERNAL = -901,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum castkeep_status castkeep_status;
#else
typedef int32_t castkeep_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the library that is running, in the form of CASTKEEP_VERSION_NUM.
 Returns  : the number; cannot fail
 Threads  : any.   Blocks: never.   Since: 0.1
 */
uint32_t castkeep_version_num(void);

/*
 The version of the library that is running, as text such as "0.1.0".
 Returns  : a static string; never NULL
 Threads  : any.   Blocks: never.   Since: 0.1
 */
const char *castkeep_version(void);

/*
 Whether this build of the library can do something.
 cap      : one of CASTKEEP_CAP_...
 Returns  : 1 yes; 0 no, or a number that this version does not know
 Threads  : any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_has(int32_t cap);

/*
 The text of a status, in English, without a full stop.
 status   : a castkeep_status, or any other number
 Returns  : a static string; "unknown status" for a number that this version does not know; never NULL
 Threads  : any.   Blocks: never.   Since: 0.1
 */
const char *castkeep_status_str(int32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CASTKEEP_H */
