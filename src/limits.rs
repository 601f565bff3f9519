//! Every cap and deadline of the project, with its reason. A number that bounds something stands here and nowhere else.
#![forbid(unsafe_code)]

use crate::time::Span;

// ---- cast ----

/// Most input bytes that one event encodes. Small enough that a lagging reader sees output soon and that one worst-case event
/// fits half the smallest ring; large enough that the per-event overhead vanishes.
pub const EVENT_INPUT_BYTES: usize = 4096;

/// Longest header line. Tailscale's is below 1 KiB; a command line can be long, and is cut to fit.
pub const HEADER_LINE_BYTES: usize = 16 * 1024;

/// Longest label of a marker; a longer one is cut. Long enough for ours and for a line that a person types.
pub const MARKER_BYTES: usize = 256;

/// Longest line of a cast that is read, whoever wrote it: an event body of a stock peer can be some MiB.
pub const CAST_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How long an incomplete UTF-8 sequence waits for its rest before it is written as it is.
pub const UTF8_TAIL_WAIT: Span = Span::from_ms(50);

// ---- ring ----

/// Smallest ring. See [`EVENT_INPUT_BYTES`].
pub const RING_MIN_BYTES: usize = 64 * 1024;

/// Largest ring: more would only delay what a full ring has to say.
pub const RING_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Ring of the C library: a router has 128 MB and some ten sessions.
pub const RING_DEFAULT_BYTES: usize = 256 * 1024;

/// Ring of `record` and `login-shell`: the rate is bounded by ring / commit latency.
pub const RING_THROUGHPUT_BYTES: usize = 4 * 1024 * 1024;

// ---- file transfers ----

/// Recorded of each stream of a file transfer unless configured: enough for what was asked for and answered at its start, little
/// against the files.
pub const TRANSFER_BYTES: u64 = 64 * 1024;

// ---- client deadlines (docs/protocol.md §3.7) ----

/// One dial, TLS included: upstream's value.
pub const DIAL: Span = Span::from_secs(5);
/// `HEAD /v2/record` with its dial: upstream's value.
pub const PROBE: Span = Span::from_secs(10);
/// Response headers, 100-continue or 101. Upstream has no bound and can hang for ever.
pub const ACCEPT: Span = Span::from_secs(10);
/// All recorders together at the start: upstream's value.
pub const START: Span = Span::from_secs(30);
/// The next address starts this long after the one before it, so that one black hole does not cost 10 s.
pub const STAGGER: Span = Span::from_secs(1);
/// Silence of a castkeep recorder while data is outstanding: three times its promised ack period.
pub const ACK_SILENCE_COMMIT: Span = Span::from_secs(3);
/// Silence of a stock v2 recorder: upstream's value.
pub const ACK_SILENCE_STOCK: Span = Span::from_secs(30);
/// Unsent or uncommitted bytes without progress: a hung disk still acks.
pub const PROGRESS: Span = Span::from_secs(10);
/// From the first loss until a commit advances.
pub const RESUME_GRACE: Span = Span::from_secs(15);
/// How long fail-open output waits for a full ring, and the program for its start.
pub const STALL_LIMIT: Span = Span::from_secs(1);
/// How long `close` waits for the last commit when the caller does not say.
pub const CLOSE_WAIT: Span = Span::from_secs(5);
/// First and longest pause between attempts in the background.
pub const BACKOFF_MIN: Span = Span::from_secs(1);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Span = Span::from_secs(30);
/// Recorders in one decision: more cannot be tried within [`START`].
pub const RECORDERS_MAX: usize = 32;
/// Connections that one session has at a time: two addresses racing at the start, one being closed, one spare.
pub const LINKS_MAX: usize = 4;
/// Places in the owner's table of a session's connections: with two for policy, which verdicts come from and failures are told to.
pub const LINK_SLOTS: usize = if cfg!(feature = "ask") { LINKS_MAX + 2 } else { LINKS_MAX };
/// Marks between raw and encoded bytes under `release=commit`. When they are used up, bytes are released in larger steps.
pub const MARKS_MAX: usize = 256;
/// First and longest pause between two rounds over all recorders while the grace runs.
pub const RESUME_PAUSE_MIN: Span = Span::from_ms(100);
/// See [`RESUME_PAUSE_MIN`].
pub const RESUME_PAUSE_MAX: Span = Span::from_secs(1);
/// `host:port` of a recorder.
pub const AUTHORITY_BYTES: usize = 300;
/// Longest reject or terminate message.
pub const MESSAGE_BYTES: usize = 4096;
/// Longest ack object. Ours are below 100 bytes; an error text is quoted in full up to this.
pub const ACK_OBJECT_BYTES: usize = 8 * 1024;

// ---- asking policy ----

/// How long a session waits for its verdict: the agent is on this machine and answers from memory.
pub const POLICY_WAIT: Span = Span::from_secs(5);
/// First and longest pause between two attempts to reach the agent.
pub const POLICY_PAUSE_MIN: Span = Span::from_ms(100);
/// See [`POLICY_PAUSE_MIN`]; a session that runs can wait for longer.
pub const POLICY_PAUSE_MAX: Span = Span::from_secs(30);
/// How long the refusal of a session waits until the failure behind it is told.
pub const NOTICE_WAIT: Span = Span::from_secs(1);
/// A question on the wire.
pub const ASK_BYTES: usize = 4 * 1024;
/// One name in it, or in an answer.
pub const ASK_FIELD_BYTES: usize = 512;
/// One answer on the wire.
pub const ASK_LINE_BYTES: usize = 8 * 1024;
/// Tags of a node that are kept.
pub const ASK_LIST_MAX: usize = 32;
/// Outgoing bytes of a link to the agent between its request and its socket.
pub const ASK_OUT_BYTES: usize = 1024;
/// Attempts that a notice tells: one round over all recorders and a few behind it.
pub const NOTICE_ATTEMPTS: usize = RECORDERS_MAX + 8;

// ---- client shell ----

/// Sessions of one client unless configured: one SSH connection rarely has more than a handful.
pub const SESSIONS_DEFAULT: usize = 64;
/// Longest wait of the worker while it has sessions, so that nothing that went wrong with a wake-up lasts.
pub const TICK: Span = Span::from_ms(250);
/// Longest wait of the worker without sessions.
pub const TICK_IDLE: Span = Span::from_secs(5);
/// How long the worker gathers small output after it has sent some, before it sleeps until it is woken.
pub const GATHER: Span = Span::from_ms(3);
/// Raw bytes that a gathering worker is woken for.
pub const GATHER_BYTES: usize = 64 * 1024;
/// How long a link that was closed in order may take for its last bytes and the peer's end.
pub const LINK_CLOSE: Span = Span::from_secs(1);
/// Stack of the worker: TLS handshakes are what needs most.
pub const WORKER_STACK_BYTES: usize = 512 * 1024;
/// Outgoing bytes of one link between the ring and its socket: more than a frame, and with the ring's slack for one
/// worst-case event below the 64 KiB that a session may hold beside its ring.
pub const LINK_OUT_BYTES: usize = 24 * 1024;
/// The least of it: a request's head, or a frame with a few lines of output.
pub const LINK_OUT_MIN_BYTES: usize = 2 * 1024;
/// Incoming bytes that are read at a time, for all links of a client.
pub const WORKER_IN_BYTES: usize = 32 * 1024;

// ---- HTTP, both roles ----

/// Request or response head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Fields in a head.
pub const HEAD_FIELDS: usize = 64;
/// Longest chunk-size line with its extensions.
pub const CHUNK_LINE_BYTES: usize = 256;
/// Receive window of a recorder, of a stream and of a connection: a fast uploader on a near network is not limited by it,
/// and no connection makes a recorder hold more than it.
pub const H2_WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest frame that we take and send: the size that every peer knows without asking.
pub const H2_FRAME_BYTES: usize = 16_384;
/// Output that waits for the socket before no more DATA is queued.
pub const H2_QUEUE_BYTES: usize = 16_384;
/// Answers that wait for a peer that does not read them, control frames included. Past it the peer is flooding.
pub const UNREAD_BYTES: usize = 64 * 1024;
/// Header block before it is decoded; and what it may become. Between [`HEAD_BYTES`] and this the answer is 431.
pub const H2_BLOCK_BYTES: usize = 4 * HEAD_BYTES;
/// Streams whose end is remembered, so that late frames for them are told from wrong ones.
pub const H2_CLOSED_STREAMS: usize = 32;
/// Useless frames (PING, SETTINGS, PRIORITY, RST_STREAM, DATA without data, empty CONTINUATION, unknown) in one window of time.
pub const H2_USELESS_FRAMES: u32 = 1_000;
/// The window of time for [`H2_USELESS_FRAMES`].
pub const H2_USELESS_WINDOW: Span = Span::from_secs(10);
/// CONTINUATION frames in one header block.
pub const H2_CONTINUATIONS: u32 = 8;
/// Streams that a peer may have open on one connection.
pub const H2_STREAMS: u32 = 8;
/// Largest frame of `castkeep/1`.
pub const UPGRADE_FRAME_BYTES: usize = 1024 * 1024;

// ---- recorder ----

/// Time for a request head.
pub const HEAD_TIME: Span = Span::from_secs(10);
/// A connection without a request.
pub const IDLE_TIME: Span = Span::from_secs(60);
/// Body bytes of an HTTP/1.1 upload that wait for storage before no more are read.
pub const SERVER_BODY_BYTES: usize = 256 * 1024;
/// How long, and how many bytes, a recorder reads on behind an answer that came before the end of the request.
pub const LINGER_TIME: Span = Span::from_secs(2);
/// See [`LINGER_TIME`].
pub const LINGER_BYTES: usize = 256 * 1024;
/// Silence of an HTTP/2 peer after which it is asked with a PING; after the same time again it counts as dead.
pub const PING_TIME: Span = Span::from_secs(30);
/// Period of ack objects for stock peers: well below their 30 s.
pub const ACK_PERIOD_STOCK: Span = Span::from_secs(5);
/// Period of ack objects for castkeep peers.
pub const ACK_PERIOD_COMMIT: Span = Span::from_secs(1);
/// Body of an event.
pub const EVENT_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Nesting of an event: what its parser takes of a connection's stack, also in a debug build.
pub const EVENT_DEPTH: usize = 64;
/// Connections at a time unless configured.
pub const CONNECTIONS_DEFAULT: usize = 4096;
/// Largest offset at which an upload may begin. Offsets stand in JSON, where readers are exact up to here, and sums of
/// offset and length must not overflow.
pub const OFFSET_MAX: u64 = 1 << 53;
/// Recordings that are remembered because a quota ended them.
pub const OVER_QUOTA_MAX: usize = 4096;
/// Parts of one recording at one recorder.
pub const PARTS_MAX: u32 = 1_000;
/// Commit points kept in a sidecar.
pub const SIDECAR_COMMITS: usize = 64;
/// Size of a part's journal file.
pub const JOURNAL_BYTES: u64 = 12_288;
/// New recordings are refused when fewer bytes are free: room for what is open to end well.
pub const MIN_FREE_BYTES: u64 = 256 * 1024 * 1024;
/// Open recordings are ended when fewer bytes are free.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Space held back for a part's sidecar.
pub const SEAL_RESERVE_BYTES: u64 = 16_384;
/// How long a recording without a connection can be resumed unless configured.
pub const RESUME_WINDOW: Span = Span::from_secs(600);
/// How long the end of a store waits for a flush: as long as a client gives a recorder whose disk hangs.
pub const STOP_WAIT: Span = PROGRESS;
/// How long stock uploads are served after SIGTERM unless configured.
pub const DRAIN_TIMEOUT: Span = Span::from_secs(60);
/// How long sent bytes may stay unacknowledged by a peer's TCP: a client that vanished is noticed by then.
pub const TCP_USER_TIMEOUT: Span = Span::from_secs(30);
/// A connection that was silent for [`TCP_USER_TIMEOUT`] is probed every so many parts of it (HTTP/1.1; HTTP/2 has PING).
pub const KEEPALIVE_PARTS: u32 = 3;
/// Connections past the bound that are still told why, in their own protocol; and, counted apart, connections of peers that may
/// not upload. Past these: a bare 503.
pub const CONNECTIONS_REFUSED: usize = 64;
/// Events that are being received at a time: each can hold [`EVENT_BODY_BYTES`].
pub const EVENTS_AT_A_TIME: usize = 16;
/// Time for the body of an event.
pub const EVENT_TIME: Span = Span::from_secs(60);
/// Bytes read from a socket at a time.
pub const READ_BYTES: usize = 64 * 1024;
/// Read buffers that exist at a time; connections past them read into a small one.
pub const READ_BUFFERS: usize = 64;
/// How long a connection that is over waits for the peer to take the last bytes.
pub const LINGER: Span = Span::from_secs(2);
/// Connections of the metrics listener at a time.
pub const METRICS_CONNECTIONS: usize = 16;
/// Time for one request to the metrics listener, answer included.
pub const METRICS_TIME: Span = Span::from_secs(5);
/// Path of a Unix socket: `sun_path` without its NUL (unix(7)).
pub const SOCKET_PATH_BYTES: usize = 107;
/// How soon a connection of the host's that names no descriptor is asked again.
pub const HOST_LINK_PAUSE: Span = Span::from_ms(20);

// ---- policy ----

/// Policy file. The largest that its grammar's own service takes is far below it.
pub const POLICY_BYTES: usize = 16 * 1024 * 1024;
/// Values in a policy file, keys with them: each takes some 80 bytes while it is read. A file of 10 MiB has about 1.5 million.
pub const POLICY_VALUES: usize = 2_000_000;
/// Node registry: 10,000 nodes of `tailscale status --json` are about 20 MB.
pub const REGISTRY_BYTES: usize = 32 * 1024 * 1024;
/// Values in a registry. See [`POLICY_VALUES`].
pub const REGISTRY_VALUES: usize = 4_000_000;
/// Nodes in a registry.
pub const REGISTRY_NODES: usize = 100_000;
/// Nesting of both; what they need is below ten. The parser calls itself for each.
pub const POLICY_DEPTH: usize = 64;
/// Rules of a policy file: a decision looks at each at most once.
pub const POLICY_RULES: usize = 20_000;
/// Errors and warnings about one file that are told one by one.
pub const POLICY_DIAGNOSTICS: usize = 200;
/// Longest error or warning about a file: what it quotes can be any length.
pub const DIAGNOSTIC_BYTES: usize = 512;
/// Questions that one entry of `sshTests` may stand for: each member of a group to each node with a tag.
pub const POLICY_TEST_QUESTIONS: usize = 100_000;
/// Longest login name: an e-mail address (RFC 5321 §4.5.3.1) and what an identity provider appends to it.
pub const LOGIN_BYTES: usize = 512;
/// Longest DNS name (RFC 1035 §2.3.4).
pub const NODE_NAME_BYTES: usize = 253;
/// Longest stable node id.
pub const NODE_ID_BYTES: usize = 64;
/// Addresses of one node or announced recorder.
pub const NODE_ADDRESSES: usize = 16;
/// Tags of one node.
pub const NODE_TAGS: usize = 256;
/// Port of a recorder that says nothing else: Tailscale's.
pub const RECORDER_PORT: u16 = 80;
/// Longest check period: Tailscale's.
pub const CHECK_PERIOD_MAX: Span = Span::from_secs(168 * 3600);
/// Check period where a rule names none: Tailscale's.
pub const CHECK_PERIOD_DEFAULT: Span = Span::from_secs(12 * 3600);
// ---- LocalAPI ----

/// Answer of WhoIs: one to three KiB; capabilities of a node can make it some more.
pub const WHOIS_BYTES: usize = 256 * 1024;
/// Answer of status: about 1.2 KiB for each node.
pub const STATUS_BYTES: usize = 64 * 1024 * 1024;
/// Time for it.
pub const STATUS_TIME: Span = Span::from_secs(10);
/// Certificate chain and key.
pub const CERTIFICATE_BYTES: usize = 256 * 1024;
/// One WhoIs of a recorder, the wait for its turn included: well within the time that clients give an answer, so that they are told
/// to go elsewhere.
pub const WHOIS_TIME: Span = Span::from_secs(3);
/// WhoIs requests of a recorder at a time: many clients come back at once.
pub const WHOIS_AT_A_TIME: usize = 8;
/// How long an answer of WhoIs holds. A node that was renamed, retagged or replaced at its address is seen so much later.
pub const WHOIS_FRESH: Span = Span::from_secs(10);
/// The same for an address that is nobody's: who has just joined does not wait.
pub const WHOIS_FRESH_UNKNOWN: Span = Span::from_secs(1);
/// Addresses whose answer is kept.
pub const WHOIS_KEPT: usize = 4_096;
/// Time for a certificate: one that has to be issued takes up to a minute.
pub const CERTIFICATE_TIME: Span = Span::from_secs(90);
/// How often the certificate is asked for; tailscaled renews it when asked within two weeks of its end.
pub const CERTIFICATE_PERIOD: Span = Span::from_secs(3_600);
/// The first pause after a failure; it doubles up to [`CERTIFICATE_PERIOD`].
pub const CERTIFICATE_RETRY: Span = Span::from_secs(60);
/// A certificate that ends within this and is not renewed is a loud error: a third of what tailscaled has for it.
pub const CERTIFICATE_ENDS_SOON: Span = Span::from_secs(5 * 24 * 3_600);
/// Tags of one node. With [`TAGS_BYTES`], so that a part's journal has room for them.
pub const TAGS_MAX: usize = 64;
/// Bytes of all tags of one node.
pub const TAGS_BYTES: usize = 1_536;

// ---- control ----

/// A bearer token: 256 bits take 43 to 64 characters.
pub const TOKEN_BYTES: usize = 512;
/// Tokens file, and control's own state: a hundred bytes for each of a hundred thousand.
pub const CONTROL_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Body of a request to control: an event with an error text for each of [`RECORDERS_MAX`] attempts.
pub const CONTROL_BODY_BYTES: usize = 256 * 1024;
/// Nesting of it; an event has three levels.
pub const CONTROL_BODY_DEPTH: usize = 16;
/// Connections of control at a time unless configured: each node has one that waits, and now and then a second.
pub const CONTROL_CONNECTIONS: usize = 4096;
/// Connections from one address that have not shown who they are.
pub const CONTROL_UNKNOWN_PER_ADDRESS: usize = 64;
/// Connections of one identity.
pub const CONTROL_CONNECTIONS_EACH: usize = 8;
/// Requests of one identity in a second, over time; and how many may come at once. A spool that empties itself fits.
pub const CONTROL_RATE: u32 = 20;
/// See [`CONTROL_RATE`].
pub const CONTROL_BURST: u32 = 200;
/// Changes that one recorder may make in a second, over time, and at once: each is compiled for every node that waits.
pub const RECORDER_CHANGE_RATE: u32 = 1;
/// See [`RECORDER_CHANGE_RATE`].
pub const RECORDER_CHANGE_BURST: u32 = 20;
/// Stack of the thread that reads policies: their parser calls itself.
pub const CONTROL_PARSER_STACK_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait of a long poll: below the minute after which gateways lose interest.
pub const CONTROL_WAIT: Span = Span::from_secs(55);
/// Time for the body of a request, and for an answer to be taken.
pub const CONTROL_TRANSFER_TIME: Span = Span::from_secs(30);
/// Bytes of policies that are being sent at a time: one for ten thousand nodes has some MiB.
pub const CONTROL_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Policies that are compiled at a time.
pub const CONTROL_COMPILING: usize = 4;
/// How often control looks whether a file changed.
pub const CONTROL_WATCH: Span = Span::from_secs(1);
/// How often a recorder announces itself; after three times that in silence it counts as gone.
pub const HEARTBEAT: Span = Span::from_secs(10);
/// Recorders that may announce themselves.
pub const RECORDERS_ANNOUNCED: usize = 1_000;
/// Addresses of one recorder.
pub const RECORDER_ADDRESSES: usize = 16;
/// Tags of one recorder.
pub const RECORDER_TAGS: usize = 16;
/// A file of the event log; the oldest goes when there are more than [`EVENT_FILES`].
pub const EVENT_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// See [`EVENT_FILE_BYTES`].
pub const EVENT_FILES: usize = 8;
/// Events that are remembered, so that one that is sent again is not kept twice.
pub const EVENTS_REMEMBERED: usize = 4096;
/// Most of one answer of events.
pub const EVENTS_ANSWER_BYTES: usize = 1024 * 1024;
/// Time for a webhook to take one event.
pub const WEBHOOK_TIME: Span = Span::from_secs(20);
/// How often a webhook may refuse an event as such before the event is passed over.
pub const WEBHOOK_REFUSALS: u32 = 10;

// ---- agent ----

/// Answer of control: a policy of thousands of rules and ten thousand nodes is a few MiB.
pub const AGENT_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The last good answer on disk; one that was made of local files can have a whole registry in it.
pub const AGENT_STATE_BYTES: usize = 64 * 1024 * 1024;
/// How long control may hold a request back until there is news: below what proxies between cut at 60 s.
pub const AGENT_POLL_WAIT: Span = Span::from_secs(50);
/// Time for an answer of control, beside what it may hold it back.
pub const AGENT_ANSWER_TIME: Span = Span::from_secs(10);
/// How often files of a policy are looked at.
pub const AGENT_FILE_TICK: Span = Span::from_ms(500);
/// A file that was changed less than this ago is read again: its time stamp may be that of an earlier half.
pub const AGENT_FILE_SETTLE: Span = Span::from_secs(2);
/// How often the LocalAPI is asked which nodes there are.
pub const AGENT_STATUS_TICK: Span = Span::from_secs(15);
/// WhoIs for one decision: the asking client waits 5 s for all of it.
pub const AGENT_WHOIS: Span = Span::from_secs(2);
/// How long a question waits for the first look at the source, when there is no policy yet. With [`AGENT_WHOIS`] less than a
/// client waits.
pub const AGENT_FIRST_WAIT: Span = Span::from_secs(2);
/// A running session is asked about anew this often, for rules that expire.
pub const AGENT_WATCH_TICK: Span = Span::from_secs(30);
/// Connections to the agent at a time; one is held by each running session that watches its verdict.
pub const AGENT_CONNECTIONS: usize = 1024;
/// The same of one user that is not root: nobody keeps the others out. All of them together leave root a quarter.
pub const AGENT_CONNECTIONS_PER_USER: usize = 128;
/// Time for a request, head and body.
pub const AGENT_REQUEST: Span = Span::from_secs(5);
/// How long an asker may leave an answer unread.
pub const AGENT_WRITE: Span = Span::from_secs(5);
/// Levels of JSON in a question or a notification: three are used, later versions may have more.
pub const ASKED_LEVELS: usize = 16;
/// A notification, with an attempt for each of [`RECORDERS_MAX`].
pub const NOTIFY_BYTES: usize = 64 * 1024;
/// Notifications that wait for control.
pub const SPOOL_EVENTS: usize = 1_000;
/// Bytes of them.
pub const SPOOL_BYTES: u64 = 8 * 1024 * 1024;
/// Notifications of one user that is not root among them: nobody drives out what others told.
pub const SPOOL_EVENTS_PER_USER: usize = 100;
/// Notifications of one user that is not root in a minute: each costs a flush, a line in the log, and at worst an alert.
pub const NOTIFY_PER_MINUTE: u32 = 60;
/// Connections whose source is remembered for notifications.
pub const AGENT_REMEMBERED: usize = 4_096;
/// How long the system log may take a message.
pub const SYSLOG_TIME: Span = Span::from_secs(1);
