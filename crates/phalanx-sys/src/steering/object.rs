//! The compiled program of `bpf/steer.bpf.c`, read from the object file that is checked in.
//!
//! `aya-obj` reads it. The loader of `aya` itself is not used: it reads and parses the type
//! information of the whole kernel first (20 MB resident and 90 ms, measured, for a program that needs
//! none of it), and its maps cannot be shared by the programs of several listeners without a bpffs.

use std::ffi::CString;

use super::bpf::{Instruction, MapSpec};
use super::error::SteeringError;

/// The program, not yet connected to its maps.
#[derive(Debug)]
pub(super) struct Object {
    #[cfg(feature = "kernel")]
    parsed: aya_obj::Object,
    #[cfg(not(feature = "kernel"))]
    never: std::convert::Infallible,
}

/// Instructions that refer to the maps of one instance.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) instructions: Vec<Instruction>,
    pub(super) license: CString,
}

#[cfg(not(feature = "kernel"))]
impl Object {
    pub(super) fn read() -> Result<Self, SteeringError> {
        Err(SteeringError::LeftOut)
    }

    pub(super) fn map(&self, _name: &'static str) -> Result<MapSpec, SteeringError> {
        match self.never {}
    }

    pub(super) fn link(self, _maps: &[(&'static str, i32)]) -> Result<Linked, SteeringError> {
        match self.never {}
    }
}

#[cfg(feature = "kernel")]
mod reading {
    use std::collections::HashSet;

    use super::{Instruction, Linked, MapSpec, Object, SteeringError};

    /// The program's function.
    const PROGRAM: &str = "steer";

    /// As aligned as the reader of ELF wants it.
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);

    static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("steer.bpf.o"));

    impl Object {
        pub(in super::super) fn read() -> Result<Self, SteeringError> {
            let parsed = aya_obj::Object::parse(&FILE.0).map_err(SteeringError::object)?;
            Ok(Self { parsed })
        }

        /// How a map is to be made.
        pub(in super::super) fn map(&self, name: &'static str) -> Result<MapSpec, SteeringError> {
            let missing = || SteeringError::object(format!("no map {name}"));
            let map = self.parsed.maps.get(name).ok_or_else(missing)?;
            Ok(MapSpec {
                kind: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            })
        }

        /// The instructions, with these descriptors as their maps.
        pub(in super::super) fn link(
            self,
            maps: &[(&'static str, i32)],
        ) -> Result<Linked, SteeringError> {
            let mut parsed = self.parsed;
            let definitions = std::mem::take(&mut parsed.maps);
            let maps = maps
                .iter()
                .filter_map(|&(name, fd)| Some((name, fd, definitions.get(name)?)));
            parsed
                .relocate_maps(maps, &HashSet::new())
                .map_err(SteeringError::object)?;
            let missing = || SteeringError::object(format!("no program {PROGRAM}"));
            let program = parsed.programs.get(PROGRAM).ok_or_else(missing)?;
            let function = parsed.functions.get(&program.function_key());
            let function = function.ok_or_else(missing)?;
            Ok(Linked {
                instructions: function.instructions.iter().copied().map(encode).collect(),
                license: program.license.clone(),
            })
        }
    }

    fn encode(instruction: aya_obj::generated::bpf_insn) -> Instruction {
        let [off_low, off_high] = instruction.off.to_le_bytes();
        let [a, b, c, d] = instruction.imm.to_le_bytes();
        let registers = instruction.src_reg() << 4 | instruction.dst_reg();
        [instruction.code, registers, off_low, off_high, a, b, c, d]
    }
}
