//! How far a long command is: one line on standard error that is written over again and again.

use std::io::{self, IsTerminal, Write};

/// The line.
pub(crate) struct ProgressLine {
    is_shown: bool,
    /// Characters of it that stand there.
    width: usize,
}

impl ProgressLine {
    /// Shown on a terminal, and elsewhere where it is asked for.
    pub(crate) fn new(asked_for: bool) -> Self {
        Self { is_shown: asked_for || io::stderr().is_terminal(), width: 0 }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Writes it anew.
    pub(crate) fn show(&mut self, text: &str) {
        if self.is_shown {
            let width = text.chars().count();
            // Where nobody sees it, nothing is lost.
            let _unseen = write!(io::stderr(), "\r{text:<old$}", old = self.width);
            self.width = width;
        }
    }

    /// Makes room for something else.
    pub(crate) fn clear(&mut self) {
        if self.width > 0 {
            self.show("");
            let _unseen = write!(io::stderr(), "\r");
            self.width = 0;
        }
    }

    /// Leaves it standing.
    pub(crate) fn end(&mut self) {
        if self.width > 0 {
            let _unseen = writeln!(io::stderr());
            self.width = 0;
        }
    }
}
