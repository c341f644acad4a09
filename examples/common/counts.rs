//! Counts on the command line.

/// A number of units or samples, of which there has to be one.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "give a whole number of at least 1".into())
}
