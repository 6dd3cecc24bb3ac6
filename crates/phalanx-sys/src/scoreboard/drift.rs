//! Counts that drift, and when to believe it.

/// Finds out what is counted for ever: connections that were chosen at their first packet and
/// never came to be, because the client gave up or never was there.
///
/// At any one look, some connections are just being made, so a surplus is normal. What is left in
/// every one of [`Drift::LOOKS`] looks is taken for lost. Look about once a second.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    looks: u32,
    low: i32,
    high: i32,
}

impl Drift {
    /// So many looks make a judgement.
    pub const LOOKS: u32 = 8;

    /// Takes [`super::Scoreboard::surplus`] down, and answers with what to [`super::Scoreboard::correct`]: 0 most
    /// of the time.
    pub fn look(&mut self, surplus: i32) -> i32 {
        if self.looks == 0 {
            (self.low, self.high) = (surplus, surplus);
        }
        self.looks += 1;
        self.low = self.low.min(surplus);
        self.high = self.high.max(surplus);
        if self.looks < Self::LOOKS {
            return 0;
        }
        self.looks = 0;
        if self.low > 0 {
            self.low
        } else {
            self.high.min(0)
        }
    }
}
