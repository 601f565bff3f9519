/* Recording of sessions. What is particular to the recording library, libcastkeep here, is in this file.
 *
 * What is shown of a session goes into the recording before it goes to the client. The command is forked at once and
 * held in the child until the recorder has answered, so the SSH reply need not wait and early input is kept. While
 * the recorder is slow the command's output is not read; while the end is being stored the exit status is held back.
 * Without -O nothing happens here. */

#include "includes.h"
#include "record.h"

#if DROPBEAR_RECORDING && !DROPBEAR_FUZZ

#include "dbutil.h"
#include "listener.h"
#include "packet.h"
#include "runopts.h"
#include "session.h"
#include "ssh.h"
#ifdef DROPBEAR_RECORDING_DL
#define CASTKEEP_DL_IMPLEMENTATION
#include <castkeep_dl.h>
#else
#include <castkeep.h>
#endif

#if DROPBEAR_VFORK
#error "a held command needs fork(): vfork() stops the server"
#endif

/* What a command that was refused, or ended by policy, leaves. */
#define REC_STATUS 254
/* When the connection ends: how long all its recordings together may take to be stored. */
#define REC_CLOSE_MS 2000
/* The marker in place of what sftp moves */
#define REC_SFTP "castkeep:sftp"
/* For struct Listener, unlike those of forwarding */
#define REC_LISTENER 0x5ec

enum rec_state {
	REC_OPENING, /* the child is held */
	REC_RUNNING,
	REC_REFUSED, /* the child was told to exit */
	REC_TERMINATED, /* in mid-session: the command has to go */
	REC_ENDING, /* all is given, the recorder has not stored it yet */
	REC_DONE
};

struct Recording {
	struct Recording *next;
	const struct ChanSess *chansess;
	castkeep_session *session; /* NULL when it could not be made */
	enum rec_state state;
	int is_transfer; /* sftp: that it ran is recorded, not what it moved */
	int gate[2]; /* the held child reads a byte: 0 go on, else exit with it */
	char message[1024]; /* for the user, not sent yet */
};

static castkeep_config *config;
static castkeep_client *client; /* NULL: nothing is recorded */
static struct Recording *recordings; /* all of this connection */

static void rec_log(void *UNUSED(user), int32_t level, const char *text, size_t len) {
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	if (level >= 0 && level <= 2) {
		dropbear_log(priorities[level], "Recording: %.*s", (int)len, text);
	}
}

void rec_setup(void) {
	char why[256] = "";
	castkeep_status status;

	if (!svr_opts.recording_conf) {
		return;
	}
#ifdef DROPBEAR_RECORDING_DL
	if (castkeep_dl_load(NULL) != CASTKEEP_STATUS_OK) {
		dropbear_exit("Recording: %s", castkeep_dl_error());
	}
#endif
	status = castkeep_config_load(svr_opts.recording_conf, strlen(svr_opts.recording_conf),
			why, sizeof(why), &config);
	if (status != CASTKEEP_STATUS_OK) {
		dropbear_exit("Recording: %s: %s", castkeep_status_str(status), why);
	}
	castkeep_config_set_log(config, rec_log, NULL);
}

/* Has the channels looked at again, as after SIGCHLD. */
static void rec_wake(void) {
	while (write(ses.signal_pipe[1], "", 1) < 0 && errno == EINTR) {}
}

/* The answer that the held child waits for. It cannot be just a closed pipe: children that are
 * forked later have a copy. */
static void rec_answer(struct Recording *rec, unsigned char answer) {
	while (write(rec->gate[1], &answer, 1) < 0 && errno == EINTR) {}
	m_close(rec->gate[0]);
	m_close(rec->gate[1]);
	rec->gate[0] = rec->gate[1] = -1;
}

static void rec_refuse(struct Recording *rec) {
	if (!rec->message[0]) {
		strlcpy(rec->message, "this session cannot be recorded", sizeof(rec->message));
	}
	rec->state = REC_REFUSED;
	rec_answer(rec, REC_STATUS);
	rec_wake();
}

static void rec_event(struct Recording *rec, int32_t event) {
	switch (event) {
		case CASTKEEP_EVENT_START:
			rec->state = REC_RUNNING;
			if (rec->is_transfer) {
				castkeep_session_marker(rec->session, REC_SFTP, strlen(REC_SFTP));
			}
			rec_answer(rec, 0);
			rec_wake(); /* the child may have been killed meanwhile */
			break;
		case CASTKEEP_EVENT_REFUSED:
			castkeep_session_message(rec->session, rec->message, sizeof(rec->message));
			rec_refuse(rec);
			break;
		case CASTKEEP_EVENT_TERMINATED:
			castkeep_session_message(rec->session, rec->message, sizeof(rec->message));
			rec->state = REC_TERMINATED;
			rec_wake();
			break;
		case CASTKEEP_EVENT_FINISHED:
		case CASTKEEP_EVENT_INCOMPLETE:
			rec->state = REC_DONE;
			rec_wake();
			break;
		default: /* room: the main loop asks for it */
			break;
	}
}

static void rec_acceptor(const struct Listener *UNUSED(listener), int UNUSED(sock)) {
	int32_t event = CASTKEEP_EVENT_NONE;
	castkeep_session *session = NULL;
	struct Recording *rec;

	castkeep_client_process(client);
	while (castkeep_client_next_event(client, &event, &session) == CASTKEEP_STATUS_OK
			&& event != CASTKEEP_EVENT_NONE) {
		for (rec = recordings; rec && rec->session != session; rec = rec->next) {}
		if (rec) {
			rec_event(rec, event);
		}
	}
}

void rec_connection(void) {
	castkeep_status status;
	int fd;

	if (!config) {
		return;
	}
	status = castkeep_client_new(config, CASTKEEP_DRIVER_POLLED, &client);
	if (status != CASTKEEP_STATUS_OK) {
		dropbear_exit("Recording: %s", castkeep_status_str(status));
	}
	/* a copy: listeners are closed by whoever removes them */
	fd = fcntl(castkeep_client_fd(client), F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || !new_listener(&fd, 1, REC_LISTENER, NULL, rec_acceptor, NULL)) {
		dropbear_exit("Recording: no descriptor");
	}
}

static void rec_text(struct Recording *rec, int32_t what, const char *text) {
	if (text) {
		castkeep_session_set_text(rec->session, what, text, strlen(text));
	}
}

static castkeep_status rec_begin(struct Recording *rec, const struct ChanSess *chansess, const char *kind) {
	struct winsize size;
	char *host = NULL, *port = NULL, id[128];
	castkeep_status status = castkeep_session_new(client, &rec->session);

	if (status != CASTKEEP_STATUS_OK) {
		return status;
	}
	rec_text(rec, CASTKEEP_TEXT_SSH_USER, ses.authstate.username);
	rec_text(rec, CASTKEEP_TEXT_LOCAL_USER, ses.authstate.pw_name);
	rec_text(rec, CASTKEEP_TEXT_COMMAND, chansess->cmd);
	rec_text(rec, CASTKEEP_TEXT_TERM, chansess->term);
	rec_text(rec, CASTKEEP_TEXT_KIND, kind);
	get_socket_address(ses.sock_in, NULL, NULL, &host, &port, 0);
	snprintf(id, sizeof(id), "%s-%s", host, port);
	rec_text(rec, CASTKEEP_TEXT_SOURCE, host);
	rec_text(rec, CASTKEEP_TEXT_SOURCE_ADDRESS, host);
	rec_text(rec, CASTKEEP_TEXT_CONNECTION_ID, id);
	m_free(host);
	m_free(port);
	if (chansess->master >= 0 && ioctl(chansess->master, TIOCGWINSZ, &size) == 0) {
		castkeep_session_resize(rec->session, size.ws_col, size.ws_row);
	}
	return castkeep_session_open(rec->session);
}

void rec_open(struct Channel *channel, int issubsys) {
	struct ChanSess *chansess = channel->typedata;
	struct Recording *rec;
	castkeep_status status;
	int i;

	if (!client) {
		return;
	}
	rec = m_malloc(sizeof(*rec));
	if (pipe(rec->gate) < 0) {
		dropbear_exit("Recording: no descriptor");
	}
	for (i = 0; i < 2; i++) {
		fcntl(rec->gate[i], F_SETFD, FD_CLOEXEC);
	}
	rec->chansess = chansess;
	rec->next = recordings;
	recordings = rec;
	chansess->rec = rec;
	/* a forced command is what runs, whatever was asked for */
	rec->is_transfer = issubsys && !chansess->original_command;
	status = rec_begin(rec, chansess, rec->is_transfer ? "subsystem" : chansess->cmd ? "exec" : "shell");
	if (status != CASTKEEP_STATUS_OK) {
		dropbear_log(LOG_WARNING, "Recording: %s", castkeep_status_str(status));
		rec_refuse(rec);
	}
}

void rec_child(const struct ChanSess *chansess) {
	struct Recording *rec = chansess->rec, *other;
	unsigned char answer = REC_STATUS;
	int n;

	if (!rec || rec->state == REC_RUNNING) {
		return;
	}
	/* only the server is to have these ends: when it is gone the held children go too */
	for (other = recordings; other; other = other->next) {
		m_close(other->gate[1]);
		other->gate[1] = -1;
	}
	if (!chansess->tty) {
		/* so that all of the command can be sent SIGHUP */
		setpgid(0, 0);
	}
	if (rec->state == REC_OPENING) {
		while ((n = read(rec->gate[0], &answer, 1)) < 0 && errno == EINTR) {}
		if (n != 1) {
			answer = REC_STATUS;
		}
		m_close(rec->gate[0]);
	}
	if (answer != 0) {
		_exit(answer);
	}
	rec->state = REC_RUNNING;
}

void rec_resize(const struct ChanSess *chansess, int cols, int rows) {
	if (chansess->rec && chansess->rec->session) {
		castkeep_session_resize(chansess->rec->session, cols, rows);
	}
}

static int rec_takes_output(const struct Recording *rec) {
	return rec->state == REC_OPENING || rec->state == REC_RUNNING;
}

size_t rec_room(const struct Channel *channel) {
	const struct Recording *rec = ((const struct ChanSess *)channel->typedata)->rec;

	/* what comes behind the end is read and discarded, so that its end is seen */
	return rec && rec_takes_output(rec) && !rec->is_transfer ? castkeep_session_room(rec->session) : SIZE_MAX;
}

int rec_tap(const struct Channel *channel, const unsigned char *data, size_t len, int isextended) {
	struct Recording *rec = ((const struct ChanSess *)channel->typedata)->rec;

	if (!rec) {
		return DROPBEAR_SUCCESS;
	}
	if (rec->is_transfer && rec->state == REC_RUNNING) {
		return DROPBEAR_SUCCESS;
	}
	if (!rec_takes_output(rec) || castkeep_session_output(rec->session,
			isextended ? CASTKEEP_STDERR : CASTKEEP_STDOUT, data, len) != CASTKEEP_STATUS_OK) {
		return DROPBEAR_FAILURE;
	}
	return DROPBEAR_SUCCESS;
}

/* To the user: as the terminal's output, or as an error message of the command. */
static void rec_show(struct Channel *channel, struct Recording *rec) {
	const int tty = ((const struct ChanSess *)channel->typedata)->tty != NULL;
	size_t len = strlen(rec->message);

	while (len > 0 && rec->message[len - 1] == '\n') {
		rec->message[--len] = '\0';
	}
	strlcat(rec->message, tty ? "\r\n" : "\n", sizeof(rec->message));
	len = MIN(strlen(rec->message), MIN(channel->transwindow, channel->transmaxpacket));
	if (len > 0 && !channel->sent_eof && !channel->recv_close) {
		CHECKCLEARTOWRITE();
		buf_putbyte(ses.writepayload, tty ? SSH_MSG_CHANNEL_DATA : SSH_MSG_CHANNEL_EXTENDED_DATA);
		buf_putint(ses.writepayload, channel->remotechan);
		if (!tty) {
			buf_putint(ses.writepayload, SSH_EXTENDED_DATA_STDERR);
		}
		buf_putstring(ses.writepayload, rec->message, len);
		channel->transwindow -= len;
		encrypt_packet();
	}
	rec->message[0] = '\0';
}

/* The command is not waited for: it may ignore SIGHUP. */
static void rec_end_command(struct Channel *channel, struct ChanSess *chansess) {
	if (chansess->exit.exitpid == -1 && kill(-chansess->pid, SIGHUP) < 0) {
		kill(chansess->pid, SIGHUP);
	}
	if (channel->writefd != channel->readfd) {
		m_close(channel->writefd);
	}
	m_close(channel->readfd);
	m_close(channel->errfd);
	channel->readfd = channel->writefd = channel->errfd = -1;
	chansess->exit.exitpid = chansess->pid;
	chansess->exit.exitsignal = -1;
	chansess->exit.exitstatus = REC_STATUS;
}

static int rec_drained(const struct Channel *channel) {
	return channel->recv_close
		|| ((channel->readfd < 0 || !fd_read_pending(channel->readfd))
			&& (channel->errfd < 0 || !fd_read_pending(channel->errfd)));
}

/* Gives the end to the recording; when that is stored there is an event. */
static void rec_finish(struct Recording *rec) {
	const struct exitinfo *ex = &rec->chansess->exit;

	if (ex->exitpid == -1) {
		castkeep_session_exit(rec->session, CASTKEEP_EXIT_DISCONNECTED, 0);
	} else if (ex->exitsignal > 0) {
		castkeep_session_exit(rec->session, CASTKEEP_EXIT_SIGNAL, ex->exitsignal);
	} else {
		castkeep_session_exit(rec->session, CASTKEEP_EXIT_CODE, ex->exitstatus);
	}
	rec->state = castkeep_session_finish(rec->session) == CASTKEEP_STATUS_OK
		? REC_ENDING : REC_DONE;
}

int rec_may_close(struct Channel *channel) {
	struct ChanSess *chansess = channel->typedata;
	struct Recording *rec = chansess->rec;

	if (!rec) {
		/* Nothing was started in it yet: what wakes the others, SIGCHLD or rec_wake, is not to close it. */
		return !client || channel->recv_close;
	}
	if (rec->message[0]) {
		rec_show(channel, rec);
	}
	if (rec->state == REC_TERMINATED) {
		rec_end_command(channel, chansess);
		rec->state = REC_DONE;
	}
	if (rec->state == REC_RUNNING && chansess->exit.exitpid != -1 && rec_drained(channel)) {
		rec_finish(rec);
	}
	return rec->state == REC_DONE || rec->state == REC_REFUSED;
}

static long rec_now_ms(void) {
	struct timespec now;
	gettime_wrapper(&now);
	return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

void rec_cleanup(struct ChanSess *chansess) {
	static long deadline_ms;
	struct Recording *rec = chansess->rec, **at, *other;

	if (!rec) {
		return;
	}
	for (at = &recordings; *at != rec; at = &(*at)->next) {}
	*at = rec->next;
	if (rec->state == REC_RUNNING || rec->state == REC_ENDING) {
		/* Only when the connection ends, and with it all its recordings: they share the time. */
		if (!deadline_ms) {
			deadline_ms = rec_now_ms() + REC_CLOSE_MS;
		}
		for (other = rec; other; other = other == rec ? recordings : other->next) {
			if (other->state == REC_RUNNING) {
				rec_finish(other);
			}
		}
		castkeep_session_close(rec->session, MAX(0, deadline_ms - rec_now_ms()));
	}
	castkeep_session_free(rec->session);
	m_close(rec->gate[0]);
	m_close(rec->gate[1]);
	m_free(rec);
	chansess->rec = NULL;
}

#endif
