//! Configurations of runs, and tables of kernel variants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parallax::device::gpu::variants::VariantTable;
use parallax::runs::record::differences;

fuzz_target!(|text: &str| {
    drop(VariantTable::from_toml(text.as_bytes()));
    // Two configurations, and one with itself.
    let (theirs, ours) = text.split_once('\u{1}').unwrap_or((text, text));
    if let Ok(found) = differences(theirs, ours)
        && theirs == ours
    {
        assert!(found.is_empty(), "{found:?}");
    }
});
