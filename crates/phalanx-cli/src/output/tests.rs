use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;

use phalanx_core::ids::{Generation, Position, WorkerId};

use super::drain::unfinished;
use super::queue::{QUEUE_BYTES, lines_in};
use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn pipe_writer(is_terminal: bool) -> (Writer, io::PipeReader, mpsc::Receiver<Dropped>) {
    let (reader, pipe) = io::pipe().unwrap();
    let (sender, dropped) = mpsc::channel();
    let on_dropped = Box::new(move |dropped| sender.send(dropped).unwrap());
    let forming = Forming {
        time: Some(false),
        ..Forming::default()
    };
    let shared = Arc::new(Shared::default());
    let writer = Writer::on(pipe.as_fd(), shared, forming.on(is_terminal), on_dropped).unwrap();
    (writer, reader, dropped)
}

fn lines(text: &str) -> Arc<Chunk> {
    Arc::new(Chunk {
        at: 0,
        worker: WorkerId(7),
        position: Position(3),
        generation: Generation(1),
        stream: "stdout",
        bytes: text.as_bytes().into(),
    })
}

#[test]
fn lines_pass_through_in_order_and_are_marked_on_a_terminal() {
    for (is_terminal, expected) in [
        (false, "one\ntwo\nthree\n"),
        (true, "[3] one\n[3] two\nthree\n"),
    ] {
        let (writer, mut reader, _dropped) = pipe_writer(is_terminal);
        writer.push_lines(&lines("one\n"));
        writer.push_lines(&lines("two"));
        writer.push(b"three\n");
        writer.finish(LIMIT);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }
}

#[test]
fn a_slow_reader_blocks_nobody_and_learns_how_much_it_missed() {
    let (writer, reader, dropped) = pipe_writer(false);
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let pushed = 5 * QUEUE_BYTES / line.len();
    for _ in 0..pushed {
        writer.push(&line);
    }
    // Reads to the end, which comes when the thread has written what waits and is gone.
    let reading = thread::spawn(move || BufReader::new(reader).lines().count());
    writer.finish(LIMIT);
    let passed = reading.join().unwrap();
    // Told once or several times, depending on when the thread had room.
    let missing: u64 = dropped.iter().map(|dropped| dropped.lines).sum();
    assert_eq!(passed + usize::try_from(missing).unwrap(), pushed);
    assert_eq!(writer.state().1, missing);
    assert!(passed * line.len() <= QUEUE_BYTES + (64 << 10), "{passed}");
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_only_what_the_queue_cannot_hold() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (sender, dropped) = mpsc::channel();
    let on_dropped = Box::new(move |dropped| sender.send(dropped).unwrap());
    let shared = Arc::new(Shared::default());
    let writer = Writer::on(full.as_fd(), shared, Form::default(), on_dropped).unwrap();
    let line = [&[b'x'; 999][..], b"\n"].concat();
    // When the second line is gone, the first one could not be written.
    for _ in 0..2 {
        writer.push(&line);
        let is_taken = || (writer.shared.waiting_bytes() == 0).then_some(());
        phalanx_testkit::wait::eventually(LIMIT, "the line is taken", is_taken);
    }
    let mut pushed = 2 + 2 * QUEUE_BYTES / line.len();
    for _ in 2..pushed {
        writer.push(&line);
    }
    // There is room again, which a replacement stands for here.
    let (reader, pipe) = io::pipe().unwrap();
    let reading = thread::spawn(move || BufReader::new(reader).lines().count());
    let replacement = File::from(std::os::fd::OwnedFd::from(pipe));
    writer.shared.change(Change::To(replacement));
    // What was lost is told with the next line that is written; one that comes too early is lost itself.
    let told = phalanx_testkit::wait::eventually(LIMIT, "the loss is told", || {
        writer.push(b"afterwards\n");
        pushed += 1;
        dropped.recv_timeout(Duration::from_millis(20)).ok()
    });
    assert!(told.because.unwrap().contains("No space left"));
    assert!(writer.state().2.unwrap().contains("No space left"));
    writer.finish(LIMIT);
    let counted = writer.state().1;
    drop(writer);
    let missing = told.lines + dropped.iter().map(|dropped| dropped.lines).sum::<u64>();
    let passed = u64::try_from(reading.join().unwrap()).unwrap();
    assert!(missing > 0);
    assert_eq!(passed + missing, u64::try_from(pushed).unwrap());
    assert_eq!(counted, missing);
}

#[test]
fn a_line_that_was_begun_is_finished_and_the_others_are_counted() {
    let piece = b"one\ntwo\nthree\n";
    let left = |written: usize| unfinished(piece, piece.len() - written);
    assert_eq!([left(0), left(2), left(4), left(13)], [0, 2, 0, 1]);
    assert_eq!(lines_in(&piece[4..]), 2);
    assert_eq!(lines_in(b""), 0);
}

#[test]
fn a_reader_that_is_gone_is_told_once_and_what_it_misses_is_counted() {
    let (writer, reader, dropped) = pipe_writer(false);
    drop(reader);
    writer.push(b"unheard\n");
    writer.finish(LIMIT);
    assert!(writer.shared.has_ended());
    let told = dropped.recv_timeout(LIMIT).unwrap();
    assert!(told.for_good && told.lines == 1, "{told:?}");
    writer.push_lines(&lines("unheard too\nand this\n"));
    assert_eq!(writer.shared.waiting_bytes(), 0);
    let (_, lines, because) = writer.state();
    assert_eq!(lines, 3);
    assert_eq!(because.unwrap(), "its reader is gone");
    assert!(dropped.try_recv().is_err());
}

#[test]
fn what_the_log_says_goes_to_the_file_too() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = directory.path().join("log");
    let file = LogFile::open(&path, Turning::default()).unwrap();
    let file = Writer::log_file(file, Forming::default(), |_| {}).unwrap();
    let (writer, _reader, _dropped) = pipe_writer(false);
    let log = writer.and_also(&file);
    log.push(b"phalanx: ready\n");
    file.push_lines(&lines("line\n"));
    file.finish(LIMIT);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "phalanx: ready\nline\n");
}

#[test]
fn the_end_is_not_held_up_by_a_reader_that_does_not_read() {
    let (writer, _reader, _dropped) = pipe_writer(false);
    writer.push(&vec![b'x'; QUEUE_BYTES / 2 - 1_000]);
    writer.finish(Duration::from_millis(50));
    assert!(!writer.shared.has_ended());
}
