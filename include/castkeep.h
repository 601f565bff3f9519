/* castkeep: session recording for SSH, from inside the SSH server.
 *
 * Generated from ffi/src by ci/header; changes belong there.
 *
 * A session is one channel of an SSH connection. Its output goes through castkeep_session_output before
 * it goes to the user, and from there, while the session runs, to the first recorder of a list that takes
 * it; when that one is lost, to the next. What happens when none can be had is policy: the configuration
 * has a message for the start and one for the middle, and where there is a message, recording is required.
 *
 *   in the listener     castkeep_config_load        a bad file stops the daemon, not the first login
 *   behind the fork,    castkeep_client_new         one client a process, one descriptor to wait for
 *   after the login
 *   for each channel    castkeep_session_new, _set_text, _resize, _open
 *   until START         the program is held; room is 0
 *   while it runs       read at most castkeep_session_room, give it to _output, then show it
 *   at the end          _exit, _finish, and FINISHED or INCOMPLETE; or _close where nobody waits any more
 *   then                castkeep_session_free
 *
 * Polled driver: no thread; the host's event loop waits for one descriptor more, and nothing blocks. The whole
 * of it, for a program whose output is on the descriptor `from` and is shown on `to`:
 *
 *   castkeep_config *config; castkeep_client *client; castkeep_session *session, *which;
 *   char why[256]; unsigned char buf[4096]; int32_t event; int started = 0, ended = 0, shut = 0;
 *
 *   if (castkeep_config_load(path, strlen(path), why, sizeof why, &config) != CASTKEEP_STATUS_OK)
 *       return complain(why);
 *   if (castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client) != CASTKEEP_STATUS_OK ||
 *       castkeep_session_new(client, &session) != CASTKEEP_STATUS_OK ||
 *       castkeep_session_set_text(session, CASTKEEP_TEXT_LOCAL_USER, user, strlen(user)) != CASTKEEP_STATUS_OK ||
 *       castkeep_session_open(session) != CASTKEEP_STATUS_OK)
 *       return refuse();
 *   while (!ended) {
 *       size_t room = castkeep_session_room(session);
 *       struct pollfd fds[2] = {{castkeep_client_fd(client), POLLIN, 0}, {from, POLLIN, 0}};
 *       int both = started && !shut && room > 0;
 *       poll(fds, both ? 2 : 1, -1);
 *       if (castkeep_client_process(client) != CASTKEEP_STATUS_OK)
 *           return refuse();
 *       while (castkeep_client_next_event(client, &event, &which) == CASTKEEP_STATUS_OK &&
 *              event != CASTKEEP_EVENT_NONE)
 *           switch (event) {
 *           case CASTKEEP_EVENT_START:      started = 1; let_it_run(); break;
 *           case CASTKEEP_EVENT_REFUSED:    show_message(which); return 254;
 *           case CASTKEEP_EVENT_TERMINATED: show_message(which); hang_up(); shut = 1;
 *                                           castkeep_session_finish(which); break;
 *           case CASTKEEP_EVENT_FINISHED:
 *           case CASTKEEP_EVENT_INCOMPLETE: ended = 1; break;
 *           }
 *       if (both && fds[1].revents && !shut) {
 *           ssize_t n;
 *           room = castkeep_session_room(session);
 *           if (room == 0)
 *               continue;
 *           n = read(from, buf, room < sizeof buf ? room : sizeof buf);
 *           if (n <= 0) {
 *               shut = 1;
 *               castkeep_session_exit(session, CASTKEEP_EXIT_CODE, status_of_program());
 *               castkeep_session_finish(session);
 *           } else if (castkeep_session_output(session, CASTKEEP_STDOUT, buf, (size_t)n) == CASTKEEP_STATUS_OK)
 *               write_all(to, buf, (size_t)n);
 *       }
 *   }
 *   castkeep_session_free(session);
 *   castkeep_client_free(client);
 *   castkeep_config_free(config);
 *
 * Threaded driver: one thread of the library's, and calls that wait, from any thread. The loop becomes
 *
 *   if (castkeep_session_wait_start(session, 60000) != CASTKEEP_STATUS_OK)
 *       return refuse();
 *   while ((n = read(from, buf, sizeof buf)) > 0 &&
 *          castkeep_session_output(session, CASTKEEP_STDOUT, buf, (size_t)n) == CASTKEEP_STATUS_OK)
 *       write_all(to, buf, (size_t)n);
 *   castkeep_session_exit(session, CASTKEEP_EXIT_CODE, status_of_program());
 *   castkeep_session_close(session, 5000);
 *
 * Every failure of a call but WOULD_BLOCK means that nothing is recorded by it. A host that must record treats it as a
 * refusal; what policy allows to go on unrecorded answers OK, and room is SIZE_MAX.
 *
 * Text and bytes go in as pointer and length and are copied; they need no NUL. Enumerations are int32_t.
 * No call but castkeep_config_load, castkeep_session_wait_start and castkeep_session_close blocks, and with the
 * threaded driver castkeep_session_output. Nothing here touches standard input
 * or output, signals (SIGPIPE is never raised), the locale or any other state of the process; descriptors are
 * close-on-exec; there is no global state, and no random generator that a fork could copy. A fault in
 * the library stops at its boundary: the call and all later ones of that client answer INTERNAL.
 *
 * What it takes, as ci/rules measures it. Memory of a session: its ring, reserved at open, and what SMALL.md says beside it.
 * Caller's stack: 32 KiB at most, TLS included; castkeep_config_load: 96 KiB at most. Descriptors: 2 for a polled
 * client, 4 for a threaded one, 3 at most for each session. Threads: none polled, one threaded, with 256 KiB of stack.
 *
 * System calls of the polled driver: epoll_create1, timerfd_create, timerfd_settime, epoll_ctl, epoll_wait, socket,
 * connect, getpeername, getsockopt, setsockopt, shutdown, sendto, recvfrom, read, close, poll, getrandom, getpid, clock_gettime,
 * madvise, and of the C library's allocator brk, mmap, munmap, mremap. (epoll_pwait and ppoll on machines without
 * epoll_wait and poll.) The threaded driver adds what threads need, castkeep_config_load what reading a file needs.
 *
 * Memory that is refused is answered NO_MEMORY, or costs the connection that wanted it. It ends the process only where
 * other libraries take it: in castkeep_config_load, in TLS, in HTTP/2's decoding of fields, and where the
 * threaded driver starts its thread.
 *
 * Fork: a client belongs to the process that made it. In a child every call answers FORKED and sends
 * nothing; the free functions close descriptors and nothing else.
 *
 * Compare CASTKEEP_VERSION_NUM with castkeep_version_num() once at start: they differ when the library
 * that was loaded is not the one that this header describes.
 */


#ifndef CASTKEEP_H
#define CASTKEEP_H

#include <stddef.h>
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
 For castkeep_has: asking an agent who records, CASTKEEP_OPTION_POLICY.
 */
#define CASTKEEP_CAP_POLICY 3

/*
 For castkeep_config_set_text: shown to the user when the session cannot be recorded from its start; setting
 it makes the start fail closed.
 */
#define CASTKEEP_OPTION_REJECT_MESSAGE 1

/*
 For castkeep_config_set_text: shown to the user when recording fails in mid-session; setting it makes the
 middle fail closed.
 */
#define CASTKEEP_OPTION_TERMINATE_MESSAGE 2

/*
 For castkeep_config_set_number: bytes of a session that are kept until a recorder has stored them, 64 KiB
 to 256 MiB. Unless set 256 KiB. A session's rate is bounded by this over the time of a commit.
 */
#define CASTKEEP_OPTION_RING_BYTES 3

/*
 For castkeep_config_set_number: most sessions of a client at a time. Unless set 64.
 */
#define CASTKEEP_OPTION_MAX_SESSIONS 4

/*
 For castkeep_config_set_number: 1 shows output only when it is stored; see castkeep_session_released. Unless
 set 0.
 */
#define CASTKEEP_OPTION_RELEASE_COMMIT 5

/*
 For castkeep_config_set_number: 1 says that the host shows no more than castkeep_session_released tells.
 Without it a client whose configuration wants output stored before it is shown is UNSUPPORTED.
 */
#define CASTKEEP_OPTION_HOST_RELEASES 6

/*
 For castkeep_config_set_number: 1 records what castkeep_session_input is given. Unless set 0.
 */
#define CASTKEEP_OPTION_RECORD_INPUT 7

/*
 For castkeep_config_set_number: milliseconds until the loss of a recorder counts as failed recording.
 Unless set 15,000.
 */
#define CASTKEEP_OPTION_GRACE_MS 8

/*
 For castkeep_config_set_number: milliseconds that a session which fails open is ever held up. Unless set
 1,000.
 */
#define CASTKEEP_OPTION_STALL_LIMIT_MS 9

/*
 For castkeep_config_set_number: milliseconds that all recorders together may take at the start. Unless set
 30,000.
 */
#define CASTKEEP_OPTION_START_LIMIT_MS 10

/*
 For castkeep_config_set_number: milliseconds that castkeep_session_finish leaves for storing the rest. Unless
 set 2,000.
 */
#define CASTKEEP_OPTION_CLOSE_WAIT_MS 11

/*
 For castkeep_config_set_number: bytes that the rings of all open sessions of a client may have together; past
 them castkeep_session_open answers LIMIT. Unless set no less than max-sessions times the ring.
 */
#define CASTKEEP_OPTION_MAX_BYTES 12

/*
 For castkeep_config_set_bytes: certificates of the authorities that recorders' certificates are checked with,
 PEM (several) or DER (one).
 */
#define CASTKEEP_OPTION_TLS_AUTHORITIES 13

/*
 For castkeep_config_set_bytes: the own certificate with what leads to its authority, PEM, or DER (one), for recorders that ask for one.
 */
#define CASTKEEP_OPTION_TLS_CERTIFICATE 14

/*
 For castkeep_config_set_bytes: its key, PEM or DER (PKCS #8, SEC 1 or PKCS #1).
 */
#define CASTKEEP_OPTION_TLS_KEY 15

/*
 For castkeep_config_set_text: accept this public key, the SHA-256 of its SPKI in hexadecimal or as "sha256/BASE64". Adds to
 those that are there. Without authorities it stands for authority and name.
 */
#define CASTKEEP_OPTION_TLS_PIN 16

/*
 For castkeep_config_set_number: 1 does not look at the validity period of a certificate whose key is pinned, for
 machines whose clock is wrong at start. Unless set 0.
 */
#define CASTKEEP_OPTION_TLS_PIN_IGNORES_TIME 17

/*
 For castkeep_config_set_number: bytes of each stream of output that are recorded of a file transfer: a session whose command is
 scp, rsync or what git runs on a server, and nothing beside it. Of the rest the recording has number and SHA-256.
 Unless set 65,536; UINT64_MAX records all.
 */
#define CASTKEEP_OPTION_TRANSFER_BYTES 18

/*
 For castkeep_config_set_number: 1 refuses sessions whose CASTKEEP_TEXT_KIND is "subsystem", which is sftp. Unless set 0.
 */
#define CASTKEEP_OPTION_REFUSE_SFTP 19

/*
 For castkeep_config_set_text: who is asked, for each session, whether it may take place and who records it: "unix:/run/castkeep/agent.sock",
 the socket of `castkeep agent`, or "https://192.0.2.7:443", `castkeep control`. The recorders and messages of this configuration
 then hold only with CASTKEEP_OPTION_POLICY_AS_CONFIGURED. A session that policy does not let go on any more is TERMINATED.
 */
#define CASTKEEP_OPTION_POLICY 20

/*
 For castkeep_config_set_text: what `castkeep control` knows this node by. Not for an agent.
 */
#define CASTKEEP_OPTION_POLICY_TOKEN 21

/*
 For castkeep_config_set_number: milliseconds that the first answer of policy may take. Unless set 5,000.
 */
#define CASTKEEP_OPTION_POLICY_WAIT_MS 22

/*
 For castkeep_config_set_number: 1 goes by the recorders and messages of this configuration where policy does not answer in time;
 with none, nothing is recorded. Unless set 0: the session is REFUSED.
 */
#define CASTKEEP_OPTION_POLICY_AS_CONFIGURED 23

/*
 For a log function: something failed for good.
 */
#define CASTKEEP_LOG_ERROR 0

/*
 For a log function: a recorder was lost or could not be used.
 */
#define CASTKEEP_LOG_WARNING 1

/*
 For a log function: a recorder took a session.
 */
#define CASTKEEP_LOG_INFO 2

/*
 For a log function: each step.
 */
#define CASTKEEP_LOG_DEBUG 3

/*
 What a transport's wants answers: when its descriptor is readable.
 */
#define CASTKEEP_WANTS_READ 1

/*
 What a transport's wants answers: when its descriptor is writable.
 */
#define CASTKEEP_WANTS_WRITE 2

/*
 For castkeep_client_new: no thread; the host waits for castkeep_client_fd and calls castkeep_client_process.
 */
#define CASTKEEP_DRIVER_POLLED 1

/*
 For castkeep_client_new: one thread of the library's own for all sessions of the client. All calls may come from any
 thread at any time, and castkeep_session_output waits for room.
 */
#define CASTKEEP_DRIVER_THREADED 2

/*
 For castkeep_client_next_event: nothing more to tell now.
 */
#define CASTKEEP_EVENT_NONE 0

/*
 The program may start.
 */
#define CASTKEEP_EVENT_START 1

/*
 The program must not start: show castkeep_session_message, end with 254. The session's last event.
 */
#define CASTKEEP_EVENT_REFUSED 2

/*
 There is room again: see castkeep_session_room.
 */
#define CASTKEEP_EVENT_ROOM 3

/*
 More may be shown: see castkeep_session_released.
 */
#define CASTKEEP_EVENT_RELEASED 4

/*
 Recording failed and policy ends the session: show castkeep_session_message, send SIGHUP to the program, then
 castkeep_session_exit and castkeep_session_finish.
 */
#define CASTKEEP_EVENT_TERMINATED 5

/*
 Everything is stored, or nothing was to be recorded. The session's last event.
 */
#define CASTKEEP_EVENT_FINISHED 6

/*
 The session ended and not everything is known to be stored. The session's last event.
 */
#define CASTKEEP_EVENT_INCOMPLETE 7

/*
 For castkeep_session_set_text: the command; a session without one is a shell.
 */
#define CASTKEEP_TEXT_COMMAND 1

/*
 For castkeep_session_set_text: the user that the client asked for.
 */
#define CASTKEEP_TEXT_SSH_USER 2

/*
 For castkeep_session_set_text: the user that the session runs as.
 */
#define CASTKEEP_TEXT_LOCAL_USER 3

/*
 For castkeep_session_set_text: TERM.
 */
#define CASTKEEP_TEXT_TERM 4

/*
 For castkeep_session_set_text: "shell", "exec" or "subsystem". Unless set, by whether there is a command.
 */
#define CASTKEEP_TEXT_KIND 5

/*
 For castkeep_session_set_text: name or address that the user came from.
 */
#define CASTKEEP_TEXT_SOURCE 6

/*
 For castkeep_session_set_text: a stable id of that node. Unless set, as SOURCE.
 */
#define CASTKEEP_TEXT_SOURCE_ID 7

/*
 For castkeep_session_set_text: whose node that is.
 */
#define CASTKEEP_TEXT_SOURCE_USER 8

/*
 For castkeep_session_set_text: what all sessions of one SSH connection share.
 */
#define CASTKEEP_TEXT_CONNECTION_ID 9

/*
 For castkeep_session_set_text: the node that the session runs on. Recorders keep recordings by it.
 */
#define CASTKEEP_TEXT_NODE 10

/*
 For castkeep_session_set_text: program and version that records, such as "dropbear/2026.94".
 */
#define CASTKEEP_TEXT_PROGRAM 11

/*
 For castkeep_session_set_text: where the connection comes from, for CASTKEEP_OPTION_POLICY: "192.0.2.7", "192.0.2.7:40022" or
 "[2001:db8::7]:40022". An agent believes SOURCE, SOURCE_ID and SOURCE_USER of root alone, and only where it cannot find out itself.
 */
#define CASTKEEP_TEXT_SOURCE_ADDRESS 12

/*
 For castkeep_session_output and castkeep_session_released: standard output, or a terminal.
 */
#define CASTKEEP_STDOUT 1

/*
 For castkeep_session_output and castkeep_session_released: standard error.
 */
#define CASTKEEP_STDERR 2

/*
 For castkeep_session_exit: the program ended with this status.
 */
#define CASTKEEP_EXIT_CODE 1

/*
 For castkeep_session_exit: the program was ended by this signal, by its number on this system.
 */
#define CASTKEEP_EXIT_SIGNAL 2

/*
 For castkeep_session_exit: the user's connection is gone and nobody knows how the program ends. The value is 0.
 */
#define CASTKEEP_EXIT_DISCONNECTED 3

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
   Called in a child of the process that made the client. Nothing was touched or sent.
   */
  CASTKEEP_STATUS_FORKED = -7,
  /*
   As many sessions, or as much memory, as the configuration allows.
   */
  CASTKEEP_STATUS_LIMIT = -8,
  /*
   Called out of a callback of the same client.
   */
  CASTKEEP_STATUS_REENTRANT = -9,
  /*
   The configuration file cannot be used; the text says why.
   */
  CASTKEEP_STATUS_CONFIG = -10,
  /*
   Policy: the session must not take place; castkeep_session_message says why.
   */
  CASTKEEP_STATUS_REFUSED = -11,
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

/*
 Moves the sessions of one process. Made after authentication, in the process that has the sessions, before
 privileges are dropped. Polled: one thread at a time. Threaded: any.
 */
typedef struct castkeep_client castkeep_client;

/*
 What sessions are recorded with: recorders, policy, limits. Plain data: no descriptor, no thread; may be used in
 forked children. One thread at a time.
 */
typedef struct castkeep_config castkeep_config;

/*
 One recording. Its calls count as calls of its client.
 */
typedef struct castkeep_session castkeep_session;

/*
 Takes a message of a client: one line without its end, of addresses, recording ids and reasons, never of
 terminal bytes or secrets. The text lives until the function returns and does not end in NUL. The function
 is called by whoever calls the client, and with the threaded driver by its thread; it must not block, call into that
 client, exit or jump away.
 */
typedef void (*castkeep_log_fn)(void *user, int32_t level, const char *text, size_t len);

/*
 Connects to a recorder for a client: for hosts that have to bind, mark, tunnel or resolve. The address is the text that
 was added, without its scheme, and does not end in NUL. fd is to be set to a stream socket that does not block and
 may still be connecting; it is the client's from then on. Returns OK, WOULD_BLOCK when the host goes on by itself and calls
 castkeep_client_dialed with the ticket, or any other number: the next recorder is tried. It must not block, call into the
 client, exit or jump away.
 */
typedef int32_t (*castkeep_dial_fn)(void *user, uint64_t ticket, const char *address, size_t len, int *fd);

/*
 Connections of the host's own, such as TLS of a library that it has already; the shape is that of mbedTLS's BIO. All
 functions are needed. None may block, call into the client, exit or jump away.
 */
typedef struct castkeep_transport {
  /*
   sizeof(castkeep_transport), set by the caller.
   */
  uint64_t size;
  /*
   Connects, handshake included. *link is NULL at first, and whatever the function puts there is handed to the
   others. Returns OK when bytes can be sent; WOULD_BLOCK to be called again when what wants says has come; any
   other number when there is no connection (close is still called unless *link is NULL).
   */
  int32_t (*start)(void *user, const char *address, size_t len, void **link);
  /*
   Returns the number of bytes read, at least 1; 0 when the peer has sent everything, in order; WOULD_BLOCK; any
   other negative number when the connection is lost.
   */
  int64_t (*read)(void *user, void *link, uint8_t *buf, size_t len);
  /*
   Returns the number of bytes taken, at least 1; WOULD_BLOCK; any other negative number when the connection is lost.
   */
  int64_t (*write)(void *user, void *link, const uint8_t *data, size_t len);
  /*
   What the connection is waiting for; more is 1 when there are bytes to write. *fd is to be set to its descriptor, or
   to -1 when there is none: then it is asked again every 20 ms. Returns CASTKEEP_WANTS_READ and
   CASTKEEP_WANTS_WRITE, or both.
   */
  int32_t (*wants)(void *user, void *link, int32_t more, int *fd);
  /*
   Ends the connection and frees what it has. abort is 1 when the peer must not take it for an orderly end.
   */
  void (*close)(void *user, void *link, int32_t abort);
} castkeep_transport;

/*
 Numbers of a session. size is the caller's: set it to sizeof before the call; only what fits is written.
 */
typedef struct castkeep_stats {
  /*
   sizeof(castkeep_stats), set by the caller.
   */
  uint64_t size;
  /*
   Bytes of the recording so far.
   */
  uint64_t encoded;
  /*
   Of these, bytes known to be stored (or received, where the recorder says no more).
   */
  uint64_t committed;
  /*
   Bytes of output that were taken, both streams.
   */
  uint64_t taken;
  /*
   Bytes of output that were shown and not recorded.
   */
  uint64_t unrecorded;
  /*
   Recorders lost in mid-session.
   */
  uint64_t losses;
} castkeep_stats;

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

/*
 A new configuration: no recorders, so nothing is recorded; fail open; limits as each option says.
 Returns  : the configuration, for castkeep_config_free; NULL without memory
 Threads  : any.   Blocks: never.   Since: 0.1
 */
struct castkeep_config *castkeep_config_new(void);

/*
 A configuration out of a file: HuJSON (JSON with comments and trailing commas), its object "client", or the
 whole when there is none. Names are those of `castkeep record`: recorders (a list of addresses), enforce, reject-message,
 terminate-message, release ("ring" or "commit"), record-input, ring and max-bytes ("256KiB"), grace, stall-limit, start-limit,
 close-wait ("15s", "500ms"), max-sessions; volume ("64KiB" or "all") and sftp ("pass" or "refuse") for file transfers; tls-ca, tls-cert, tls-key (files, read now), tls-pin (one or a list),
 tls-pin-ignores-time; policy, policy-token-file (read now), policy-wait and policy-unreachable ("refuse" or "as-configured"). A recorder is an address as for castkeep_config_add_recorder, or {"address": ..., "name": ...}
 as for castkeep_config_add_recorder_named, or {"host": ...} as for castkeep_config_add_recorder_host. A name that is not known is an error, so that no policy is lost to a typing mistake.
 Read it once, where the daemon starts: a bad file should stop the daemon, not the first login.
 path,len : the file
 why,cap  : out, what is wrong, cut to fit and ended with NUL; may be NULL with 0
 config   : out, the configuration, for castkeep_config_free; NULL unless OK
 Returns  : OK; CONFIG (why says what, where); BAD_PARAMETER; TOO_BIG (the path); NO_MEMORY; UNSUPPORTED (the tiny build: why says
            so); INTERNAL. Memory that is refused while the file is read ends the process.
 Threads  : any.   Blocks: reads a file.   Since: 0.1
 */
int32_t castkeep_config_load(const char *path, size_t len, char *why, size_t cap, struct castkeep_config **config);

/*
 Frees a configuration. Clients that were made of it have a copy.
 config   : may be NULL
 Threads  : any.   Blocks: never.   Since: 0.1
 */
void castkeep_config_free(struct castkeep_config *config);

/*
 Adds a recorder behind those that are there: they are tried in this order.
 address,len : "192.0.2.7:80", "[2001:db8::7]:80" or "unix:/run/recorder"; "https://192.0.2.7:443" speaks TLS, and the
            certificate must be for that address; no names, because resolving blocks
 Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32); UNSUPPORTED (TLS); NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_add_recorder(struct castkeep_config *config, const char *address, size_t len);

/*
 As castkeep_config_add_recorder, for a recorder that is spoken to with TLS and whose certificate is for a name.
 address,len : "https://192.0.2.7:443" or "https://[2001:db8::7]:443"
 name,name_len : the host name in the certificate, such as "recorder.example"
 Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32 recorders); UNSUPPORTED; NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_add_recorder_named(struct castkeep_config *config, const char *address, size_t len, const char *name, size_t name_len);

/*
 Adds a recorder by its name, for hosts that connect by themselves (castkeep_config_set_dial, castkeep_config_set_transport):
 resolving is theirs.
 host,len : "rec.example:80"; "https://rec.example:443" speaks TLS over what castkeep_config_set_dial brings, and the
            certificate must be for the name
 Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32 recorders); UNSUPPORTED; NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_add_recorder_host(struct castkeep_config *config, const char *host, size_t len);

/*
 Sets an option that is bytes: certificates and keys. Nothing is read from files, so that a client may live in a chroot.
 option   : CASTKEEP_OPTION_TLS_AUTHORITIES, _CERTIFICATE or _KEY
 data,len : copied; at most 1 MiB. Looked at by castkeep_config_check and castkeep_client_new
 Returns  : OK; BAD_PARAMETER; TOO_BIG; UNSUPPORTED; NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_bytes(struct castkeep_config *config, int32_t option, const uint8_t *data, size_t len);

/*
 Whether the whole of a configuration can be used: what its parts need of each other, certificates, keys.
 castkeep_config_load does this by itself.
 why,cap  : out, what is wrong, cut to fit and ended with NUL; may be NULL with 0
 Returns  : OK; CONFIG (why says what); BAD_PARAMETER; NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_check(const struct castkeep_config *config, char *why, size_t cap);

/*
 Sets an option that is text.
 option   : CASTKEEP_OPTION_..._MESSAGE, _TLS_PIN, _POLICY or _POLICY_TOKEN
 data,len : UTF-8, at most 4,096 bytes
 Returns  : OK; BAD_PARAMETER; TOO_BIG; UNSUPPORTED (a pin, without TLS; policy, in the tiny build); NO_MEMORY; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_text(struct castkeep_config *config, int32_t option, const char *data, size_t len);

/*
 Sets an option that is a number.
 option   : CASTKEEP_OPTION_...
 value    : in the unit that the option says
 Returns  : OK; BAD_PARAMETER (not an option, or out of its range); UNSUPPORTED; INTERNAL
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_number(struct castkeep_config *config, int32_t option, uint64_t value);

/*
 Sets where messages of clients go. Without it nothing is logged.
 function : NULL logs nothing
 user     : handed to the function
 Returns  : OK; BAD_PARAMETER
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_log(struct castkeep_config *config, castkeep_log_fn function, void *user);

/*
 Sets who connects to recorders, in place of the library. The library's TLS goes over what it brings.
 function : NULL lets the library connect
 user     : handed to the function
 Returns  : OK; BAD_PARAMETER
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_dial(struct castkeep_config *config, castkeep_dial_fn function, void *user);

/*
 Sets connections of the host's own, for all recorders. They are addressed without https://, because what is sent is
 encrypted by the host or by nobody.
 table    : copied; NULL for the library's own connections
 user     : handed to the functions
 Returns  : OK; BAD_PARAMETER (a size or a function is missing)
 Threads  : one at a time.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_config_set_transport(struct castkeep_config *config, const struct castkeep_transport *table, void *user);

/*
 A client. Nothing is connected, and nothing is read from files.
 config   : copied
 driver   : CASTKEEP_DRIVER_POLLED or CASTKEEP_DRIVER_THREADED
 client   : out, for castkeep_client_free; NULL unless OK
 Returns  : OK; BAD_PARAMETER; CONFIG (see castkeep_config_check); UNSUPPORTED (the driver; or output is to be
            stored before it is shown and the host has not said that it can:
            CASTKEEP_OPTION_HOST_RELEASES); NO_MEMORY; INTERNAL
 Threads  : any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_client_new(const struct castkeep_config *config, int32_t driver, struct castkeep_client **client);

/*
 The one descriptor of a client, the same for its life. Polled: an epoll instance; wait until it is readable (poll, select,
 epoll), then call castkeep_client_process. Threaded: an eventfd, readable while castkeep_client_next_event has something to
 tell. It belongs to the client: do not close it, read it, or wait for it to be writable.
 Returns  : a descriptor; -1 for NULL
 Threads  : any.   Blocks: never.   Since: 0.1
 */
int castkeep_client_fd(const struct castkeep_client *client);

/*
 Does what can be done without waiting: sends, receives, connects, keeps deadlines. Then ask castkeep_client_next_event.
 With the threaded driver its thread does this, and the call does nothing.
 Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_client_process(struct castkeep_client *client);

/*
 The connection that a dial function left pending, or that there is none.
 ticket   : as the dial function was given it
 fd       : a stream socket that does not block and may still be connecting; -1 when there is none. It is the client's from
            now on, whatever the answer
 Returns  : OK; CLOSED (nobody waits for it any more, and it was closed); BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_client_dialed(struct castkeep_client *client, uint64_t ticket, int fd);

/*
 The next thing to tell. Call it until there is none, after castkeep_client_process and after any other call
 that the host does not follow with a wait.
 event    : out, CASTKEEP_EVENT_...; NONE when there is nothing
 session  : out, whose event it is; NULL with NONE
 Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_client_next_event(struct castkeep_client *client, int32_t *event, struct castkeep_session **session);

/*
 Gives up what its sessions have not stored yet, and frees the client. The sessions' handles stay, answer CLOSED, and are
 still to be freed. In a forked child it only closes descriptors; out of a callback of the client it does nothing.
 client   : may be NULL; no call of it or its sessions is running
 Threads  : any.   Blocks: with the threaded driver, until its thread has ended; it waits for no peer.   Since: 0.1
 */
void castkeep_client_free(struct castkeep_client *client);

/*
 A session that is not open yet: set its text and size, then castkeep_session_open.
 session  : out, for castkeep_session_free; NULL unless OK
 Returns  : OK; BAD_PARAMETER; NO_MEMORY; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_new(struct castkeep_client *client, struct castkeep_session **session);

/*
 Says something about the session for the first line of the recording. Before castkeep_session_open.
 what     : CASTKEEP_TEXT_...
 data,len : copied; any bytes, of which those that are not UTF-8 are replaced
 Returns  : OK; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE (it is open); CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_set_text(struct castkeep_session *session, int32_t what, const char *data, size_t len);

/*
 Opens the session: reserves its memory and begins to look for a recorder. CASTKEEP_EVENT_START or
 CASTKEEP_EVENT_REFUSED follows, at the latest after the start limit. Until START the program must not run: fork it, and let
 the child wait on a pipe.
 Returns  : OK; LIMIT; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE (it is open); CLOSED; FORKED; REENTRANT; INTERNAL. After a failure the
            session is only to be freed
 Threads  : polled: one at a time; threaded: any.   Blocks: never, but for the kernel's random generator shortly after boot.   Since: 0.1
 */
int32_t castkeep_session_open(struct castkeep_session *session);

/*
 Waits until it is known whether the program may start, for hosts without an event loop. The events come as well.
 timeout_ms: longest wait
 Returns  : OK (the program may start); REFUSED (it must not: show castkeep_session_message, end with 254); TIMED_OUT (not
            known yet); BAD_PARAMETER; WRONG_STATE; CLOSED (it is over); FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: at most timeout_ms.   Since: 0.1
 */
int32_t castkeep_session_wait_start(struct castkeep_session *session, uint32_t timeout_ms);

/*
 How many bytes the next castkeep_session_output takes whole: 0 while opening, when what waits for the recorder has
 filled its memory, and after the end; SIZE_MAX when nothing is recorded; otherwise at least 2,048. Behind a 0 comes
 CASTKEEP_EVENT_ROOM. Do not read from the program while it is 0, and at
 most so much: a descriptor that is not read is what holds a program back. Output of both streams shares it, so ask again after each output.
 Returns  : bytes; 0 for NULL, before castkeep_session_open, and in a forked child
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
size_t castkeep_session_room(const struct castkeep_session *session);

/*
 Gives output of the program to the recording, before it is shown: what was not taken must not be.
 Polled: all of it or none. Threaded: all of it, waiting for room.
 stream   : CASTKEEP_STDOUT or CASTKEEP_STDERR
 data,len : copied before return, any bytes, any split; data may be NULL only when len is 0
 Returns  : OK; WOULD_BLOCK (polled: len is more than castkeep_session_room); CLOSED (the session is over: discard
            what was given); BAD_PARAMETER; WRONG_STATE (not open); FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Since: 0.1
 Blocks   : polled: never. Threaded: while there is no room; what policy does about a lost recorder bounds it.
 */
int32_t castkeep_session_output(struct castkeep_session *session, int32_t from, const uint8_t *data, size_t len);

/*
 Gives what the user typed to the recording, when the configuration records it. Never held back: what has no room is
 left out. Do not give it what is typed without echo.
 data,len : copied before return
 Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_input(struct castkeep_session *session, const uint8_t *data, size_t len);

/*
 The terminal has this size. Before castkeep_session_open, and until START, it goes into the recording's first line.
 cols,rows: cells
 Returns  : OK; BAD_PARAMETER; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_resize(struct castkeep_session *session, uint16_t cols, uint16_t rows);

/*
 Puts a marker into the recording; players jump to it.
 data,len : its label, cut to 256 bytes
 Returns  : OK; WOULD_BLOCK; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_marker(struct castkeep_session *session, const char *data, size_t len);

/*
 How many bytes of a stream may be shown, from its beginning: all that output took, or with CASTKEEP_OPTION_RELEASE_COMMIT
 what is stored.
 stream   : CASTKEEP_STDOUT or CASTKEEP_STDERR
 Returns  : bytes; 0 for NULL, another stream, before castkeep_session_open, and in a forked child
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
uint64_t castkeep_session_released(const struct castkeep_session *session, int32_t of);

/*
 The message for the user behind CASTKEEP_EVENT_REFUSED and CASTKEEP_EVENT_TERMINATED; behind CASTKEEP_EVENT_START what policy has
 to say before the session begins, without a line end.
 buf,cap  : out, cut to fit and ended with NUL; may be NULL with 0
 Returns  : the length of the whole message without the NUL; 0 when there is none
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
size_t castkeep_session_message(const struct castkeep_session *session, char *buf, size_t cap);

/*
 The recording's id: 32 hexadecimal digits, by which `castkeep ls`, `play` and `join` know it.
 buf,cap  : out, cut to fit and ended with NUL; may be NULL with 0
 Returns  : 32; 0 before castkeep_session_open
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
size_t castkeep_session_recording(const struct castkeep_session *session, char *buf, size_t cap);

/*
 Numbers of the session.
 stats    : in, its size; out, the numbers
 Returns  : OK; BAD_PARAMETER (NULL, or a size below 8); WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_stats(const struct castkeep_session *session, struct castkeep_stats *stats);

/*
 The program has ended: the recording's last event. Only castkeep_session_finish or castkeep_session_close follows.
 how      : CASTKEEP_EXIT_...
 value    : the status or the signal's number
 Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_exit(struct castkeep_session *session, int32_t how, int32_t value);

/*
 Ends the session without waiting: CASTKEEP_EVENT_FINISHED or CASTKEEP_EVENT_INCOMPLETE follows within
 CASTKEEP_OPTION_CLOSE_WAIT_MS. Keep the program's exit status from the user until then, and wait on castkeep_client_fd as before.
 Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
int32_t castkeep_session_finish(struct castkeep_session *session);

/*
 Ends the session and waits until it is stored: for a process that is about to exit. Other sessions of the client are
 served meanwhile; their events wait for castkeep_client_next_event. After it the session is only to be freed.
 timeout_ms: longest wait; 0 sends what can be sent at once
 Returns  : OK (everything is stored); TIMED_OUT (not everything is known to be); BAD_PARAMETER; WRONG_STATE;
            CLOSED; FORKED; REENTRANT; INTERNAL
 Threads  : polled: one at a time; threaded: any.   Blocks: at most timeout_ms.   Since: 0.1
 */
int32_t castkeep_session_close(struct castkeep_session *session, uint32_t timeout_ms);

/*
 Gives up what is not stored yet, and frees the session. In a forked child it only closes descriptors; out of a callback
 of its client it does nothing.
 session  : may be NULL
 Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
 */
void castkeep_session_free(struct castkeep_session *session);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CASTKEEP_H */
