//! Runs the compiled program outside of the kernel, instruction by instruction (RFC 9669).
//!
//! What the program calls is played by the fields of [`Machine`]; its maps are files, which the
//! code under test has mapped at the same time. Anything that the verifier would not let pass is
//! a panic.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::steering::bpf::Instruction;

/// The maps, by the number that they are linked with.
pub(super) const SLOTS: i32 = 3;
pub(super) const GROUP: i32 = 4;
pub(super) const BOARD: i32 = 5;

/// An address is the number of a piece of memory in its upper half, and an offset.
const STACK: u64 = 1;
const CONTEXT: u64 = 2;
const PACKET: u64 = 3;
const MIGRATING: u64 = 4;
const FILES: u64 = 8;

/// More than any run takes.
const STEPS_MAX: u32 = 100_000;

/// What arrives.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    /// The IP header, then the TCP header.
    pub(super) network: Vec<u8>,
    pub(super) transport: Vec<u8>,
    /// `ETH_P_*`.
    pub(super) protocol: u16,
    /// Of addresses and ports.
    pub(super) hash: u32,
    /// `struct bpf_sock` of a connection that moves.
    pub(super) migrating: Option<Vec<u8>>,
}

pub(super) struct Machine {
    pub(super) program: Vec<Instruction>,
    pub(super) group: File,
    pub(super) board: File,
    /// The positions that have a slot.
    pub(super) slots: BTreeSet<u32>,
    /// `bpf_ktime_get_ns`.
    pub(super) nanoseconds: u64,
    /// `bpf_get_prandom_u32`.
    pub(super) random: Box<dyn FnMut() -> u32>,
    /// How many instructions the last run took.
    pub(super) steps: u32,
}

struct Run<'a> {
    machine: &'a mut Machine,
    packet: &'a Packet,
    registers: [u64; 11],
    stack: Vec<u8>,
    context: Vec<u8>,
    selected: Option<u32>,
}

impl Machine {
    /// The slot that the program selects for the packet, if it does.
    pub(super) fn run(&mut self, packet: &Packet) -> Option<u32> {
        let end = u64::try_from(packet.transport.len()).unwrap();
        let mut context = vec![0; 56];
        context[0..8].copy_from_slice(&(PACKET << 32).to_le_bytes());
        context[8..16].copy_from_slice(&(PACKET << 32 | end).to_le_bytes());
        context[20..24].copy_from_slice(&u32::from(packet.protocol.to_be()).to_le_bytes());
        context[32..36].copy_from_slice(&packet.hash.to_le_bytes());
        if packet.migrating.is_some() {
            context[48..56].copy_from_slice(&(MIGRATING << 32).to_le_bytes());
        }
        let mut run = Run {
            machine: self,
            packet,
            registers: [0; 11],
            stack: vec![0; 512],
            context,
            selected: None,
        };
        run.registers[1] = CONTEXT << 32;
        run.registers[10] = STACK << 32 | 512;
        assert_eq!(run.finish(), 1, "SK_PASS");
        run.selected
    }
}

impl Run<'_> {
    fn finish(&mut self) -> u64 {
        let mut at = 0_usize;
        for step in 1..=STEPS_MAX {
            let [code, registers, ..] = self.machine.program[at];
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            let (offset, immediate) = numbers(self.machine.program[at]);
            at += 1;
            match code & 7 {
                0 => {
                    assert_eq!(code, 0x18, "the only load of 64 bits");
                    let (_, upper) = numbers(self.machine.program[at]);
                    at += 1;
                    // A map by its descriptor, or a number.
                    let lower = u64::from(immediate.cast_unsigned());
                    self.registers[to] = extended(upper) << 32 | lower;
                }
                1 => {
                    self.registers[to] = self.load(moved(self.registers[from], offset), size(code));
                }
                2 => self.store(
                    moved(self.registers[to], offset),
                    size(code),
                    extended(immediate),
                ),
                3 if code & 0xe0 == 0xc0 => self.atomic(code, to, from, offset, immediate),
                3 => self.store(
                    moved(self.registers[to], offset),
                    size(code),
                    self.registers[from],
                ),
                4 | 7 => self.calculate(code, to, from, immediate),
                _ => match code {
                    0x85 => self.registers[0] = self.call(immediate),
                    0x95 => {
                        self.machine.steps = step;
                        return self.registers[0];
                    }
                    _ if self.jumps(code, to, from, immediate) => {
                        at = at.checked_add_signed(offset.into()).unwrap();
                    }
                    _ => {}
                },
            }
        }
        panic!("no end in {STEPS_MAX} steps");
    }

    fn operand(&self, code: u8, from: usize, immediate: i32) -> u64 {
        if code & 8 == 0 {
            extended(immediate)
        } else {
            self.registers[from]
        }
    }

    fn calculate(&mut self, code: u8, to: usize, from: usize, immediate: i32) {
        let wide = code & 7 == 7;
        let (one, other) = (self.registers[to], self.operand(code, from, immediate));
        if code & 0xf0 == 0xd0 {
            let swapped = one.swap_bytes() >> (64 - immediate);
            assert!(code & 8 != 0, "only to big endian");
            self.registers[to] = swapped;
            return;
        }
        let bits = if wide { 64 } else { 32 };
        let cut = |value: u64| if wide { value } else { u64::from(low(value)) };
        let (x, y) = (cut(one), cut(other));
        let shift = low(y) % bits;
        let signed = if wide {
            x.cast_signed()
        } else {
            i64::from(low(x).cast_signed())
        };
        self.registers[to] = cut(match code & 0xf0 {
            0x00 => x.wrapping_add(y),
            0x10 => x.wrapping_sub(y),
            0x20 => x.wrapping_mul(y),
            0x30 => x.checked_div(y).unwrap_or(0),
            0x40 => x | y,
            0x50 => x & y,
            0x60 => x << shift,
            0x70 => x >> shift,
            0x80 => x.wrapping_neg(),
            0x90 => x.checked_rem(y).unwrap_or(x),
            0xa0 => x ^ y,
            0xb0 => y,
            0xc0 => (signed >> shift).cast_unsigned(),
            operation => panic!("unknown calculation {operation:#x}"),
        });
    }

    fn jumps(&self, code: u8, to: usize, from: usize, immediate: i32) -> bool {
        let wide = code & 7 == 5;
        let cut = |value: u64| if wide { value } else { u64::from(low(value)) };
        let signed = |value: u64| {
            if wide {
                value.cast_signed()
            } else {
                i64::from(low(value).cast_signed())
            }
        };
        let (x, y) = (
            cut(self.registers[to]),
            cut(self.operand(code, from, immediate)),
        );
        match code & 0xf0 {
            0x00 => true,
            0x10 => x == y,
            0x20 => x > y,
            0x30 => x >= y,
            0x40 => x & y != 0,
            0x50 => x != y,
            0x60 => signed(x) > signed(y),
            0x70 => signed(x) >= signed(y),
            0xa0 => x < y,
            0xb0 => x <= y,
            0xc0 => signed(x) < signed(y),
            0xd0 => signed(x) <= signed(y),
            condition => panic!("unknown condition {condition:#x}"),
        }
    }

    fn atomic(&mut self, code: u8, to: usize, from: usize, offset: i16, immediate: i32) {
        let address = moved(self.registers[to], offset);
        let before = self.load(address, size(code));
        let after = before.wrapping_add(self.registers[from]);
        assert!(immediate & !1 == 0, "only additions");
        self.store(address, size(code), after);
        if immediate & 1 == 1 {
            self.registers[from] = before;
        }
    }

    fn call(&mut self, function: i32) -> u64 {
        let [_, one, two, three, four, five, ..] = self.registers;
        // The kernel leaves nothing in them.
        self.registers[1..6].fill(0xdead_dead_dead_dead);
        match function {
            1 => {
                assert_eq!(self.load(two, 4), 0, "arrays with one element");
                (FILES + one) << 32
            }
            5 => self.machine.nanoseconds,
            7 => u64::from((self.machine.random)()),
            68 => {
                assert_eq!(five, 1, "BPF_HDR_START_NET");
                let begin = usize::try_from(two).unwrap();
                let end = begin + usize::try_from(four).unwrap();
                let Some(bytes) = self.packet.network.get(begin..end) else {
                    return extended(-14);
                };
                for (address, &byte) in (three..).zip(bytes) {
                    self.store(address, 1, byte.into());
                }
                0
            }
            82 => {
                assert_eq!(two, u64::from(SLOTS.unsigned_abs()));
                assert_eq!(four, 0, "no flags");
                let position = low(self.load(three, 4));
                if !self.machine.slots.contains(&position) {
                    return extended(-2);
                }
                self.selected = Some(position);
                0
            }
            other => panic!("unknown function {other}"),
        }
    }

    fn load(&mut self, address: u64, size: usize) -> u64 {
        let mut value = [0; 8];
        let begin = usize::try_from(low(address)).unwrap();
        let memory: &[u8] = match address >> 32 {
            STACK => &self.stack,
            CONTEXT => &self.context,
            PACKET => &self.packet.transport,
            MIGRATING => self.packet.migrating.as_ref().unwrap(),
            file => {
                let file = self.file(file);
                file.read_exact_at(&mut value[..size], u64::from(low(address)))
                    .unwrap();
                return u64::from_le_bytes(value);
            }
        };
        value[..size].copy_from_slice(&memory[begin..begin + size]);
        u64::from_le_bytes(value)
    }

    fn store(&mut self, address: u64, size: usize, value: u64) {
        let begin = usize::try_from(low(address)).unwrap();
        let bytes = &value.to_le_bytes()[..size];
        if address >> 32 == STACK {
            self.stack[begin..begin + size].copy_from_slice(bytes);
        } else {
            let end = u64::from(low(address)) + u64::try_from(size).unwrap();
            let file = self.file(address >> 32);
            assert!(end <= file.metadata().unwrap().len(), "beyond the map");
            file.write_all_at(bytes, u64::from(low(address))).unwrap();
        }
    }

    fn file(&self, number: u64) -> &File {
        let map = number
            .checked_sub(FILES)
            .and_then(|map| i32::try_from(map).ok());
        match map {
            Some(GROUP) => &self.machine.group,
            Some(BOARD) => &self.machine.board,
            other => panic!("an address of nothing: {other:?}"),
        }
    }
}

/// Offset and immediate of an instruction.
fn numbers(instruction: Instruction) -> (i16, i32) {
    let [_, _, low, high, a, b, c, d] = instruction;
    (
        i16::from_le_bytes([low, high]),
        i32::from_le_bytes([a, b, c, d]),
    )
}

fn size(code: u8) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn moved(address: u64, offset: i16) -> u64 {
    address.wrapping_add_signed(offset.into())
}

fn extended(immediate: i32) -> u64 {
    i64::from(immediate).cast_unsigned()
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
