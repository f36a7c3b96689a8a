//! The division of a grid among processes that share its folder.

use std::fmt;
use std::str::FromStr;

use super::Job;
use crate::error::{Error, Result};

/// One of several parts of a grid, written `2/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 1.
    number: usize,
    count: usize,
}

impl Shard {
    /// The part of the rank `rank`, counted from 0, of `count` ranks.
    pub fn of_rank(rank: usize, count: usize) -> Self {
        Shard {
            number: rank + 1,
            count,
        }
    }

    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// The jobs of this part, in their order. Jobs that need each other stay together, so that no
    /// part waits for another one. The parts are balanced by the floating-point operations at this
    /// width of the networks.
    ///
    /// # Errors
    /// As [`Work::flops`](super::Work::flops).
    pub fn select(self, jobs: Vec<&Job>, width: f64) -> Result<Vec<&Job>> {
        // For each job, the first job of its cluster.
        let mut first: Vec<usize> = (0..jobs.len()).collect();
        for (place, job) in jobs.iter().enumerate() {
            for need in &job.needs {
                if let Some(needed) = jobs[..place].iter().position(|job| job.id == *need) {
                    let (a, b) = (first[place], first[needed]);
                    for other in first.iter_mut().filter(|other| **other == a.max(b)) {
                        *other = a.min(b);
                    }
                }
            }
        }
        let mut clusters: Vec<(usize, f64)> = Vec::new();
        for (job, &first) in jobs.iter().zip(&first) {
            let flops = job.work.flops(width)?;
            match clusters.iter_mut().find(|(other, _)| *other == first) {
                Some((_, sum)) => *sum += flops,
                None => clusters.push((first, flops)),
            }
        }
        // Assigns the clusters, largest first, each to the part with the least work so far.
        clusters.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut loads = vec![0f64; self.count];
        let mut own = Vec::new();
        for (first, flops) in clusters {
            let least = (0..self.count).min_by(|&a, &b| loads[a].total_cmp(&loads[b]));
            let least = least.unwrap_or_default();
            loads[least] += flops;
            if least + 1 == self.number {
                own.push(first);
            }
        }
        let jobs = jobs.into_iter().zip(first);
        Ok(jobs
            .filter(|(_, first)| own.contains(first))
            .map(|(job, _)| job)
            .collect())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let numbers = word.split_once('/').and_then(|(number, count)| {
            let (number, count) = (number.parse().ok()?, count.parse().ok()?);
            (1..=count)
                .contains(&number)
                .then_some(Shard { number, count })
        });
        numbers.ok_or_else(|| {
            Error::usage(format!(
                "'{word}' is no part; expected a number from 1 and how many parts there are, as in 2/8"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::tests::settings;
    use super::super::{Grid, Scale};
    use super::*;

    #[test]
    fn parts_are_whole_trees_of_similar_size() {
        let settings = settings(Scale::Paper);
        let grid = Grid::new(&settings);
        let width = settings.sizes.width;
        let flops =
            |jobs: &[&Job]| -> f64 { jobs.iter().map(|job| job.work.flops(width).unwrap()).sum() };
        let all = flops(&grid.select(None));
        for count in [1, 2, 4, 7] {
            let mut seen = Vec::new();
            for rank in 0..count {
                let part = Shard::of_rank(rank, count)
                    .select(grid.select(None), width)
                    .unwrap();
                let ids: Vec<&str> = part.iter().map(|job| job.id.as_str()).collect();
                for job in &part {
                    assert!(
                        job.needs.iter().all(|need| ids.contains(&need.as_str())),
                        "{}",
                        job.id
                    );
                }
                if count <= 4 {
                    assert!(
                        flops(&part) < 1.5 * all / count as f64,
                        "part {rank} of {count}"
                    );
                }
                seen.extend(ids.into_iter().map(str::to_string));
            }
            seen.sort();
            let mut ids: Vec<&String> = grid.jobs.iter().map(|job| &job.id).collect();
            ids.sort();
            assert!(seen.iter().eq(ids), "{count} parts");
        }
    }

    #[test]
    fn a_part_is_a_number_and_a_count() {
        assert_eq!("2/8".parse::<Shard>().unwrap().to_string(), "2/8");
        assert!("1/1".parse::<Shard>().unwrap().is_whole());
        for word in ["", "2", "0/4", "5/4", "1/0", "-1/2", "a/b", "1/2/3"] {
            let error = word.parse::<Shard>().unwrap_err().to_string();
            assert!(
                error.contains(word) && error.contains("as in 2/8"),
                "{error}"
            );
        }
    }
}
