//! A stage in Rust, with nothing but Rust's own library: it loses one frame in N.
//!
//!     rustc -O -o stage-rs examples/stage.rs
//!     tunread tap0 | ./stage-rs 100 | tunwrite tap1
//!
//! usage: stage-rs N < stream > stream
//!
//! It loses every Nth frame, and none if N is 0. It does not look at annotations. A stage
//! that reads frames looks there for the link, Ethernet or IP.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::raw::{c_int, c_short, c_ulong};
use std::os::unix::io::FromRawFd;
use std::process::exit;

const MAX_FRAME: usize = 1 << 20;
const MAX_VALUE: usize = MAX_FRAME + (64 << 10);
const MAX_DEPTH: usize = 32;
const READ: usize = 256 << 10;

// --- msgpack ---------------------------------------------------------------

#[derive(PartialEq)]
enum Kind {
    Nil,
    Unsigned,
    Bin,
    Array,
    Map,
    Other,
}

/// Why a value cannot be read.
enum Stop {
    More, // it is not all there yet
    Wrong(&'static str),
}

/// A reader of values that lie in memory.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Returns the next bytes. A length over the limit is refused before the bytes are there.
    fn take(&mut self, n: usize, most: usize) -> Result<&'a [u8], Stop> {
        if n > most || n > MAX_VALUE - self.at {
            return Err(Stop::Wrong("a length is over the limit"));
        }
        let taken = self.bytes.get(self.at..self.at + n).ok_or(Stop::More)?;
        self.at += n;
        Ok(taken)
    }

    /// Reads a number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, Stop> {
        Ok(self.take(bytes, 8)?.iter().fold(0, |n, &b| n << 8 | b as usize))
    }

    /// Reads a value without its children. Returns its kind, its content of up to `most`
    /// bytes, and the number of its children.
    fn element(&mut self, most: usize) -> Result<(Kind, &'a [u8], usize), Stop> {
        let first = self.number(1)?;
        let (kind, size, children) = match first {
            0x00..=0x7f => (Kind::Unsigned, 0, 0),
            0x80..=0x8f => (Kind::Map, 0, 2 * (first & 15)),
            0x90..=0x9f => (Kind::Array, 0, first & 15),
            0xa0..=0xbf => (Kind::Other, first & 31, 0), // a string
            0xc0 => (Kind::Nil, 0, 0),
            0xc1 => return Err(Stop::Wrong("found byte 0xc1, which msgpack never uses")),
            0xc2 | 0xc3 | 0xe0..=0xff => (Kind::Other, 0, 0), // booleans, -32 to -1
            0xc4..=0xc6 => (Kind::Bin, self.number(1 << (first - 0xc4))?, 0),
            0xc7..=0xc9 => (Kind::Other, self.number(1 << (first - 0xc7))? + 1, 0), // extensions
            0xca | 0xcb => (Kind::Other, 4 << (first - 0xca), 0),                   // floats
            0xcc..=0xcf => (Kind::Unsigned, 1 << (first - 0xcc), 0),
            0xd0..=0xd3 => (Kind::Unsigned, 1 << (first - 0xd0), 0), // or negative, see below
            0xd4..=0xd8 => (Kind::Other, 1 + (1 << (first - 0xd4)), 0), // extensions
            0xd9..=0xdb => (Kind::Other, self.number(1 << (first - 0xd9))?, 0), // strings
            0xdc | 0xdd => (Kind::Array, 0, self.number(2 << (first - 0xdc))?),
            _ => (Kind::Map, 0, 2 * self.number(2 << (first - 0xde))?),
        };
        if children > MAX_VALUE {
            return Err(Stop::Wrong("a length is over the limit"));
        }
        let content = self.take(size, most)?;
        if (0xd0..=0xd3).contains(&first) && content[0] >= 0x80 {
            return Ok((Kind::Other, content, 0));
        }
        Ok((kind, content, children))
    }

    /// Goes past so many values, which are nested so deep.
    fn skip(&mut self, count: usize, depth: usize) -> Result<(), Stop> {
        if count > 0 && depth > MAX_DEPTH {
            return Err(Stop::Wrong("values are nested more than 32 deep"));
        }
        for _ in 0..count {
            let (_, _, children) = self.element(MAX_VALUE)?;
            self.skip(children, depth + 1)?;
        }
        Ok(())
    }

    /// Reads a value of the stream. Returns a frame, or nothing of an annotation.
    fn value(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        let (kind, _, children) = self.element(MAX_VALUE)?;
        if kind == Kind::Map {
            self.skip(children, 1)?;
            return Ok(None);
        }
        if kind != Kind::Array || children < 3 {
            return Err(Stop::Wrong("found neither a frame nor an annotation"));
        }
        let (time, _, _) = self.element(MAX_VALUE)?;
        if time != Kind::Unsigned {
            return Err(Stop::Wrong("the time is no unsigned integer"));
        }
        let (offload, header, _) = self.element(MAX_VALUE)?;
        if offload != Kind::Nil && (offload != Kind::Bin || header.len() != 10) {
            return Err(Stop::Wrong("the offload is neither nil nor 10 bytes"));
        }
        let (kind, frame, _) = self.element(MAX_FRAME)?;
        if kind != Kind::Bin {
            return Err(Stop::Wrong("the frame is no bin"));
        }
        self.skip(children - 3, 1)?;
        Ok(Some(frame))
    }
}

// --- the stage -------------------------------------------------------------

/// Deals with the whole values at the beginning of `buf`: what passes moves to its beginning.
/// Returns the bytes that pass, the bytes of whole values, and the fault behind them.
fn values(
    buf: &mut [u8],
    pass: &mut impl FnMut(&[u8]) -> bool,
) -> (usize, usize, Option<&'static str>) {
    let (mut passed, mut start) = (0, 0);
    while start < buf.len() {
        let mut reader = Reader { bytes: &buf[start..], at: 0 };
        let passes = match reader.value() {
            Ok(frame) => frame.map_or(true, &mut *pass),
            Err(Stop::More) => break,
            Err(Stop::Wrong(what)) => return (passed, start, Some(what)),
        };
        let end = start + reader.at;
        if passes {
            if passed < start {
                buf.copy_within(start..end, passed);
            }
            passed += end - start;
        }
        start = end;
    }
    (passed, start, None)
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

extern "C" {
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
}
const POLLIN: c_short = 1;
const SIGINT: c_int = 2;
const SIG_IGN: usize = 1;

/// Waits for input. Returns false if nobody reads stdout any more.
fn wait() -> bool {
    // Asking for nothing on stdout tells all the same when its reader is gone.
    let mut fds =
        [PollFd { fd: 0, events: POLLIN, revents: 0 }, PollFd { fd: 1, events: 0, revents: 0 }];
    unsafe { poll(fds.as_mut_ptr(), 2, -1) };
    fds[1].revents == 0
}

/// Passes on the values for which `pass` says so, up to the end of the input.
fn run(mut pass: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
    // Not std::io's buffers, which would cut reads and writes into small pieces.
    let mut stdin = ManuallyDrop::new(unsafe { File::from_raw_fd(0) });
    let mut stdout = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    // An unfinished value at the end of the buffer stays for the next read.
    let mut buf = vec![0; MAX_VALUE + READ];
    let (mut have, mut offset) = (0, 0);
    while wait() {
        match stdin.read(&mut buf[have..have + READ]) {
            Ok(0) if have == 0 => return Ok(()),
            Ok(0) => return Err(format!("offset {}: the input ends inside a value", offset)),
            Ok(n) => have += n,
            Err(e) => return Err(format!("stdin: {}", e)),
        }
        let (passed, size, wrong) = values(&mut buf[..have], &mut pass);
        match stdout.write_all(&buf[..passed]) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(format!("stdout: {}", e)),
            Ok(()) => (),
        }
        buf.copy_within(size..have, 0);
        have -= size;
        offset += size;
        if let Some(what) = wrong {
            return Err(format!("offset {}: {}", offset, what));
        }
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let every: u64 = match args.as_slice() {
        [n] if n.parse::<u64>().is_ok() => n.parse().unwrap(),
        _ => {
            eprintln!("stage-rs: one argument is wanted: a number of frames");
            exit(2);
        }
    };
    // ^C reaches all stages at once: the source stops, and the others come to the end of
    // their input.
    unsafe { signal(SIGINT, SIG_IGN) };
    let mut count = 0;
    let result = run(|_frame| {
        count += 1;
        every == 0 || count % every != 0
    });
    if let Err(what) = result {
        eprintln!("stage-rs: {}", what);
        exit(1);
    }
}
