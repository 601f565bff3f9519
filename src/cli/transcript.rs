//! Plain text of what a terminal showed, in bounded memory.

use std::collections::VecDeque;

use avt::parser::Function;
use avt::{Line, Observation, Observer, Operation, ScreenKind, Terminal};

use crate::cast::clamp_size;
use crate::cast::text::escape_control;

/// A terminal, and the lines that it has done with.
pub(super) struct Screen {
    terminal: Terminal,
    watch: Watch,
    resizes: u32,
}

impl Screen {
    /// None for a size of nothing, which the clamping does not let through.
    pub(super) fn new(cols: u16, rows: u16, screens: bool) -> Option<Self> {
        let (cols, rows) = clamp_size(cols, rows);
        let terminal = Terminal::new(cols.into(), rows.into()).ok()?;
        Some(Self { terminal, watch: Watch { screens, ..Watch::default() }, resizes: 0 })
    }

    pub(super) fn feed(&mut self, text: &str, time: u64) {
        self.watch.time = time;
        self.terminal.feed_with(text, &mut self.watch);
    }

    pub(super) fn resize(&mut self, cols: u16, rows: u16) {
        self.resizes += 1;
        // Each one rearranges everything: a file full of them is not the record of a session.
        if self.resizes <= RESIZES_MAX {
            let (cols, rows) = clamp_size(cols, rows);
            self.terminal.resize_with(cols.into(), rows.into(), &mut self.watch);
        }
    }

    /// Puts a line of its own below what is on the screen now.
    pub(super) fn note(&mut self, text: String) {
        let row = self.watch.gone + next_row(&self.terminal);
        self.watch.insert(row, text + "\n");
    }

    /// The text that is ready.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.watch.out)
    }

    /// The rest.
    pub(super) fn finish(mut self) -> String {
        if self.terminal.active_screen_kind() == ScreenKind::Alternate {
            self.watch.leave(&self.terminal);
        }
        self.watch.rest(&self.terminal);
        self.watch.out
    }
}

/// Sees lines go.
#[derive(Default)]
struct Watch {
    screens: bool,
    out: String,
    /// Rows of the primary screen that are in `out`.
    gone: u64,
    /// Whether the last of them goes on in the next.
    in_line: bool,
    time: u64,
    /// When and at which row of the primary screen a full-screen program began.
    entered: Option<(u64, u64)>,
    /// The last screen of the program that is about to leave.
    screen: Option<String>,
    /// Texts that wait for their row; together at most [`WAITING_MAX`] bytes.
    waiting: VecDeque<(u64, String)>,
    waiting_bytes: usize,
}

impl Watch {
    fn row(&mut self, line: &Line) {
        if !self.in_line {
            self.due(self.gone);
        }
        let text = line.text();
        let text = if line.is_wrapped() { &*text } else { text.trim_end() };
        self.out.push_str(&escape_control(text));
        self.in_line = line.is_wrapped();
        if !self.in_line {
            self.out.push('\n');
        }
        self.gone += 1;
    }

    /// Everything that the primary screen still shows.
    fn rest(&mut self, terminal: &Terminal) {
        let lines: Vec<&Line> = terminal.primary_screen().all_lines().collect();
        let used = lines.iter().rposition(|l| !l.text().trim_end().is_empty()).map_or(0, |i| i + 1);
        for line in lines.into_iter().take(used) {
            self.row(line);
        }
        if std::mem::take(&mut self.in_line) {
            self.out.push('\n');
        }
        self.due(u64::MAX);
    }

    fn due(&mut self, row: u64) {
        while self.waiting.front().is_some_and(|(at, _)| *at <= row) {
            let Some((_, text)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= text.len();
            self.out.push_str(&text);
        }
    }

    fn insert(&mut self, row: u64, text: String) {
        let row = self.waiting.back().map_or(row, |(last, _)| row.max(*last));
        self.waiting_bytes += text.len();
        self.waiting.push_back((row, text));
        while self.waiting_bytes > WAITING_MAX {
            let Some((_, text)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= text.len();
            if std::mem::take(&mut self.in_line) {
                self.out.push('\n');
            }
            self.out.push_str(&text);
        }
    }

    /// A full-screen program leaves.
    fn leave(&mut self, terminal: &Terminal) {
        let Some((began, row)) = self.entered.take() else { return };
        if !self.screens {
            return;
        }
        let screen = self.screen.take().unwrap_or_else(|| shown(terminal));
        if !screen.is_empty() {
            let seconds = self.time.saturating_sub(began) as f64 / 1e6;
            self.insert(
                row,
                format!("[a full-screen program, {seconds:.1} s; its last screen:]\n{screen}"),
            );
        }
    }
}

impl Observer for Watch {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let terminal = context.terminal();
        let alternate = terminal.active_screen_kind() == ScreenKind::Alternate;
        match operation {
            // A full reset clears the screen without scrolling it off.
            Operation::Function(Function::Ris) => {
                if alternate {
                    self.leave(terminal);
                }
                self.rest(terminal);
            }
            Operation::Function(Function::Decset(_)) if !alternate => {
                self.entered = Some((self.time, self.gone + next_row(terminal)));
            }
            // Most that are reset are others, and a copy of the screen for each would take long.
            Operation::Function(Function::Decrst(modes))
                if alternate && self.screens && format!("{modes:?}").contains("AltScreen") =>
            {
                self.screen = Some(shown(terminal));
            }
            _ => {}
        }
    }

    fn after(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        if let Operation::Function(Function::Decset(_) | Function::Decrst(_)) = operation {
            let terminal = context.terminal();
            if terminal.active_screen_kind() == ScreenKind::Primary {
                if self.screen.is_some() {
                    self.leave(terminal);
                }
                self.entered = None;
            }
            self.screen = None;
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.row(line);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// The lines of the screen, without what is empty around them.
fn shown(terminal: &Terminal) -> String {
    let mut out = String::new();
    let mut empty = 0;
    for line in terminal.screen().visible_lines() {
        let text = line.text();
        let text = text.trim_end();
        if text.is_empty() {
            empty += 1;
            continue;
        }
        let before = if out.is_empty() { 0 } else { empty };
        out.extend(std::iter::repeat_n("|\n", before));
        empty = 0;
        out.push_str("| ");
        out.push_str(&escape_control(text));
        out.push('\n');
    }
    out
}

/// The row that the next line begins on.
fn next_row(terminal: &Terminal) -> u64 {
    let cursor = terminal.cursor();
    cursor.row as u64 + u64::from(cursor.col > 0)
}

const RESIZES_MAX: u32 = 10_000;
const WAITING_MAX: usize = 4 << 20;
