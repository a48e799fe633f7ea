//! The terminal as a screen: keys that arrive without Enter, a second buffer that leaves the user's
//! scrollback alone, and everything put back at the end, whatever the end is.
//!
//! Modes are set with `stty`, which every Unix has, instead of a dependency. Where it fails, the
//! screen still works and Enter or Ctrl-C leaves it.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

/// Enters the second buffer, hides the cursor and cuts long lines instead of wrapping them.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// Undoes [`ENTER`].
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The size where `stty` does not tell.
const LINES_DEFAULT: usize = 24;

/// The terminal while it is a screen.
pub(super) struct Terminal {
    saved: Option<String>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    keys: mpsc::UnboundedReceiver<u8>,
}

impl Terminal {
    /// Takes the terminal over.
    pub(super) fn enter() -> io::Result<Self> {
        let saved = stty(&["-g"]);
        // A read returns after a tenth of a second without a key, so that the reader can end and
        // does not eat the first line of the shell.
        let polling =
            saved.is_some() && stty(&["-icanon", "-echo", "min", "0", "time", "1"]).is_some();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, keys) = mpsc::unbounded_channel();
        let flag = Arc::clone(&stop);
        let reader = std::thread::Builder::new()
            .name("demo-keys".into())
            .spawn(move || read_keys(&sender, &flag))?;
        let mut out = io::stdout();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Self { saved, stop, reader: Some(reader).filter(|_| polling), keys })
    }

    /// The lines of the terminal.
    pub(super) fn lines(&self) -> usize {
        let size = stty(&["size"]).unwrap_or_default();
        let lines = size.split_whitespace().next().and_then(|n| n.parse().ok());
        lines.filter(|n| *n > 0).unwrap_or(LINES_DEFAULT)
    }

    /// Waits for a key that leaves: `q`, Enter or Escape.
    pub(super) async fn left(&mut self) {
        loop {
            match self.keys.recv().await {
                Some(b'q' | b'Q' | b'\n' | b'\r' | 0x1b | 0x04) => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Draws a frame over the last one.
    pub(super) fn draw(&self, frame: &str) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for line in frame.lines() {
            text.push_str(line);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J");
        let mut out = io::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It has nothing to panic about; and the terminal has to be put back in any case.
            let _ = reader.join();
        }
        if let Some(saved) = &self.saved {
            stty(&[saved]);
        }
        let mut out = io::stdout();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

fn read_keys(keys: &mpsc::UnboundedSender<u8>, stop: &AtomicBool) {
    let mut key = [0];
    while !stop.load(Ordering::Relaxed) {
        match io::stdin().read(&mut key) {
            Ok(0) => {}
            Ok(_) if keys.send(key[0]).is_ok() => {}
            _ => return,
        }
    }
}

/// Runs `stty` on our terminal; its output when it succeeds.
fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    match output.status.success() {
        true => Some(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        false => None,
    }
}
