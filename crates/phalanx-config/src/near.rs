//! Slips of the key: which word was meant.

/// As many keys may have slipped in a word of that length.
fn slips(length: usize) -> usize {
    if length < 4 { 1 } else { 2 }
}

/// Longer words are none of ours, and comparing them takes long.
const LONGEST: usize = 64;

/// The nearest of these words, if it is near enough. Case, `_` and `-` make no difference.
pub(crate) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace('_', "-");
    let wanted = plain(word);
    let near = words.map(|one| (strsim::osa_distance(&wanted, &plain(one)), one));
    let near = near.filter(|(distance, _)| *distance <= slips(word.len()));
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, one)| one)
}
