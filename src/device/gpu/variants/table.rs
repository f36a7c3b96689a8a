//! The table that selects a variant per class of shapes: measured on an adapter, or shipped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Operation, ShapeClass, Variant};

/// Bytes of workgroup memory of an adapter for which `shipped.toml` has the costs `default`.
const MUCH_WORKGROUP_MEMORY: u32 = 48 * 1024;

/// The adapter, driver and shaders that a table was measured on. With others, another table may be
/// faster, and results may differ in rounding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableKey {
    pub adapter: String,
    pub driver: String,
    /// See [`crate::device::gpu::kernels::digest`].
    pub shaders: String,
}

impl TableKey {
    /// The differences, in the form `driver: OLD, now NEW`, if there are any.
    pub fn difference(&self, now: &TableKey) -> Option<String> {
        let parts = [
            ("adapter", &self.adapter, &now.adapter),
            ("driver", &self.driver, &now.driver),
            ("shaders", &self.shaders, &now.shaders),
        ];
        let differing: Vec<String> = parts
            .iter()
            .filter(|(_, theirs, ours)| theirs != ours)
            .map(|(name, theirs, ours)| format!("{name}: {theirs}, now {ours}"))
            .collect();
        (!differing.is_empty()).then(|| differing.join("; "))
    }
}

/// Selects variants: the one measured for the class, otherwise the one of lowest cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantTable {
    /// The origin of the table, for messages.
    pub source: String,
    #[serde(flatten)]
    pub key: TableKey,
    /// Relative time per element of the result, padded to whole tiles. A variant without cost runs
    /// only for the classes that name it.
    pub cost: BTreeMap<Variant, u32>,
    /// The fastest measured variants.
    #[serde(default)]
    pub classes: BTreeMap<ShapeClass, Variant>,
    /// Variants whose results are wrong on this adapter. They are never selected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<Operation, BTreeSet<Variant>>,
}

impl VariantTable {
    /// The built-in table for the adapter of `key`, which has this much workgroup memory.
    pub fn shipped(key: TableKey, workgroup_bytes: u32) -> Self {
        VariantTable::of_file(&shipped(), key, workgroup_bytes)
    }

    /// The table of an entry of `shipped.toml`, or of its default if `key` is of another adapter.
    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn of_entry(entry: &str, key: TableKey) -> Result<Self, String> {
        let cost = "cost = { plain = 1 }";
        let text = format!("{entry}\n[default]\n{cost}\n[small]\n{cost}\n");
        let file = toml::from_str(&text).map_err(|e| e.to_string())?;
        Ok(VariantTable::of_file(&file, key, MUCH_WORKGROUP_MEMORY))
    }

    fn of_file(file: &Shipped, key: TableKey, workgroup_bytes: u32) -> Self {
        let entry = file.adapter.iter().find(|entry| entry.covers(&key.adapter));
        let (source, cost) = match entry {
            Some(entry) => (format!("shipped, for {}", entry.name), &entry.cost),
            None if workgroup_bytes < MUCH_WORKGROUP_MEMORY => (
                "shipped, for adapters with less than 48 KiB of workgroup memory".to_string(),
                &file.small.cost,
            ),
            None => (
                "shipped, for every other adapter".to_string(),
                &file.default.cost,
            ),
        };
        VariantTable {
            source,
            key,
            cost: cost.clone(),
            classes: entry.map_or(BTreeMap::new(), |entry| entry.classes.clone()),
            rejected: BTreeMap::new(),
        }
    }

    /// The table that selects `variant` for every operation that has it.
    pub fn only(variant: Variant, key: TableKey) -> Self {
        VariantTable {
            source: format!("{variant} alone"),
            key,
            cost: BTreeMap::from([(variant, 1)]),
            classes: BTreeMap::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// Whether there is a built-in table for this adapter, so that it needs no tuning.
    pub fn ships_for(adapter: &str) -> bool {
        shipped().adapter.iter().any(|entry| entry.covers(adapter))
    }

    /// The variant of `class` among `available`, each with the number of elements of the result,
    /// padded to its tiles. `Plain` if the table has neither the class nor costs.
    pub fn choose(&self, class: &ShapeClass, available: &[(Variant, usize)]) -> Variant {
        let available = || {
            let all = available.iter();
            all.filter(|(variant, _)| !self.rejects(class.operation, *variant))
        };
        let measured = self.classes.get(class);
        if let Some(&variant) = measured.filter(|v| available().any(|(own, _)| own == *v)) {
            return variant;
        }
        let costs = available()
            .filter_map(|&(v, elements)| Some((*self.cost.get(&v)? as usize * elements, v)));
        costs.min().map_or(Variant::Plain, |(_, variant)| variant)
    }

    /// Whether `variant` of `operation` is never selected.
    pub fn rejects(&self, operation: Operation, variant: Variant) -> bool {
        let variants = self.rejected.get(&operation);
        variants.is_some_and(|variants| variants.contains(&variant))
    }

    /// Never selects these variants, but for plain, from now on.
    pub fn reject(&mut self, variants: impl IntoIterator<Item = (Operation, Variant)>) {
        for (operation, variant) in variants {
            if variant != Variant::Plain {
                self.rejected.entry(operation).or_default().insert(variant);
            }
        }
    }

    /// The rejected variants with their operations.
    pub fn rejections(&self) -> impl Iterator<Item = (Operation, Variant)> {
        let operations = self.rejected.iter();
        operations.flat_map(|(operation, variants)| variants.iter().map(|v| (*operation, *v)))
    }

    /// The origin of the table, the number of measured classes, and the rejected variants.
    pub fn summary(&self) -> String {
        let mut summary = self.source.clone();
        if !self.classes.is_empty() {
            summary += &format!(", {} shapes", self.classes.len());
        }
        if !self.rejected.is_empty() {
            let names = self
                .rejections()
                .map(|(operation, variant)| format!("{} {variant}", operation.name()));
            let names: Vec<String> = names.collect();
            summary += &format!(", without {} (wrong results here)", names.join(", "));
        }
        summary
    }

    /// The table as TOML.
    ///
    /// # Errors
    /// The message of the TOML writer.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|e| e.to_string())
    }

    /// Reads the output of [`VariantTable::to_toml`].
    ///
    /// # Errors
    /// A message of one line.
    pub fn from_toml(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        toml::from_str(text).map_err(|e| e.message().to_string())
    }
}

/// The file `shipped.toml`.
#[derive(Deserialize)]
struct Shipped {
    adapter: Vec<ShippedFor>,
    default: ShippedDefault,
    small: ShippedDefault,
}

#[derive(Deserialize)]
struct ShippedFor {
    /// A part of the adapter's name. Case is ignored.
    name: String,
    cost: BTreeMap<Variant, u32>,
    #[serde(default)]
    classes: BTreeMap<ShapeClass, Variant>,
}

#[derive(Deserialize)]
struct ShippedDefault {
    cost: BTreeMap<Variant, u32>,
}

impl ShippedFor {
    fn covers(&self, adapter: &str) -> bool {
        adapter.to_lowercase().contains(&self.name.to_lowercase())
    }
}

fn shipped() -> Shipped {
    toml::from_str(include_str!("shipped.toml")).expect("the tests parse shipped.toml")
}
