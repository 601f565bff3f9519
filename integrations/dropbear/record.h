/* Recording of sessions, in svr-record.c. A build without it keeps nothing of this, and one for fuzzing neither. */
#ifndef DROPBEAR_RECORD_H_
#define DROPBEAR_RECORD_H_

#include "includes.h"
#include "channel.h"
#include "chansession.h"

#if DROPBEAR_RECORDING && !DROPBEAR_FUZZ

/* Reads the configuration, once in each process that serves; ends the program when it is bad. */
void rec_setup(void);
/* After authentication, while privileges are still held. */
void rec_connection(void);
/* Before the command is forked: begins the recording, the command is held until it has begun. */
void rec_open(struct Channel *channel, int issubsys);
/* In the forked child, before anything is shown, logged or run: waits for the recorder's answer. */
void rec_child(const struct ChanSess *chansess);
void rec_resize(const struct ChanSess *chansess, int cols, int rows);
/* Hooks of the channel, see struct ChanType. */
size_t rec_room(const struct Channel *channel);
int rec_tap(const struct Channel *channel, const unsigned char *data, size_t len, int isextended);
/* Whether the channel need not be kept open for the recording. */
int rec_may_close(struct Channel *channel);
void rec_cleanup(struct ChanSess *chansess);

#else

#define rec_setup()
#define rec_connection()
#define rec_open(channel, issubsys)
#define rec_child(chansess)
#define rec_resize(chansess, cols, rows)
#define rec_room NULL
#define rec_tap NULL
#define rec_may_close(channel) 1
#define rec_cleanup(chansess)

#endif
#endif
