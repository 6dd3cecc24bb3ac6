//! Memory that others write to at the same time: the kernel program, or processes.
#![allow(
    unsafe_code,
    reason = "shared memory is mapped and given a type nowhere else"
)]

use std::fmt;
use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A type that shared memory can be seen as.
///
/// # Safety
///
/// It is `repr(C)` and consists of atomic integers (and padding that nobody reads), so that any
/// bytes are a value of it and others may change them at any time.
pub(crate) unsafe trait Shared: Sized {}

/// Shared memory, mapped until it is dropped.
pub(crate) struct Mapped<T: Shared> {
    start: NonNull<T>,
}

impl<T: Shared> Mapped<T> {
    /// Maps what `fd` refers to (mmap(2)), which must be as long as `T`: the memory of an eBPF
    /// map always is or the call fails; a file's length is the caller's to check.
    pub(crate) fn new(fd: impl AsFd) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without an address, the mapping takes the place of nothing.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                mem::size_of::<T>(),
                access,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        // Pages are aligned to more than any `T` here asks for.
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start })
    }
}

impl<T: Shared> Deref for Mapped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as `T`, aligned to a page and lives until `self` is
        // dropped; by `Shared`, any content is a `T`, and changes by others are what atomics are for.
        unsafe { self.start.as_ref() }
    }
}

impl<T: Shared> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and no reference outlives `self`.
        let result = unsafe { munmap(self.start.as_ptr().cast(), mem::size_of::<T>()) };
        debug_assert!(result.is_ok(), "munmap of a mapping: {result:?}");
    }
}

impl<T: Shared> fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mapped").field(&self.start).finish()
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and `T` consists of atomics.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}
