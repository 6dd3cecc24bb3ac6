//! What the C library's allocator keeps for itself.
#![cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "mallopt(3)"))]

/// Has all threads of this process take memory from one place. By default each gets a place of its own (glibc: up to eight a processor), and none
/// gives back what another could use: a process whose helper threads make large texts now and then keeps several times of what it needs.
///
/// To be called before threads are started; it holds for those that come. Other allocators than glibc's have nothing of the kind.
pub fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number of the allocator's under its own lock (mallopt(3)).
        let _is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
