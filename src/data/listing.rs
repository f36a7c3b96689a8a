//! Lists of names in messages, which stay short however many names there are.

/// Names that a list has at most.
const NAMES: usize = 10;
/// Bytes that the names of a list have at most, beyond the first name.
const BYTES: usize = 700;

/// The first of `names` with commas between them, at most ten, and the number of the others.
pub fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let mut text = String::new();
    let mut shown = 0;
    let mut more = 0;
    for name in names {
        let name = name.as_ref();
        let fits = shown == 0 || text.len() + name.len() <= BYTES;
        // No later name is shown after one that was left out.
        if more > 0 || shown == NAMES || !fits {
            more += 1;
            continue;
        }
        if shown > 0 {
            text.push_str(", ");
        }
        text.push_str(name);
        shown += 1;
    }
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_list_has_at_most_ten_names_and_a_count() {
        assert_eq!(listed(["a"]), "a");
        let names: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        assert_eq!(listed(&names[..10]), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9");
        assert_eq!(listed(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }

    #[test]
    fn long_names_make_the_list_shorter() {
        let names = vec!["x".repeat(300); 5];
        let text = listed(&names);
        assert!(text.ends_with("and 3 more") && text.len() < 800, "{text}");
    }
}
