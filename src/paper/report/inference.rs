#![doc = include_str!("rule.md")]

use super::statistics::{Contrast, Interval, Measured, Pooling, Term, slope_weights};

/// The rule above, as the page and `claims.md` print it.
pub const RULE: &str = include_str!("rule.md");

/// The family-wise error rate: the probability that any claim of a section is answered wrongly.
const FAMILY_ERROR: f64 = 0.05;
/// Number of claims that share [`FAMILY_ERROR`].
const CLAIMS: f64 = 8.0;
/// The prior standard deviation of an accuracy over seeds.
pub const ACCURACY_SPREAD: f64 = 0.005;
/// The prior standard deviation of the logarithm of a measured time.
pub const TIME_SPREAD: f64 = 0.1;
/// Lower bound of the clean accuracy that attacked accuracies are divided by.
const LEAST_ACCURACY: f64 = 1e-3;

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Supported,
    Contradicted,
    NotDecided,
    NotTested,
}

impl Answer {
    pub fn words(self) -> &'static str {
        match self {
            Answer::Supported => "supported",
            Answer::Contradicted => "contradicted",
            Answer::NotDecided => "not decided",
            Answer::NotTested => "not tested at this scale",
        }
    }
}

/// The unit of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Percentage points.
    Points,
    /// Percentage points per doubling, printed with two digits because slopes are small.
    Slope,
    /// The logarithm of SimCLR's cost relative to RotNet's. It is printed as RotNet's cost relative
    /// to SimCLR's.
    Cost,
}

impl Measure {
    pub fn value(self, effect: f64) -> String {
        match self {
            Measure::Points => format!("{:+.1} points", 100.0 * effect),
            Measure::Slope => format!("{:+.2} points", 100.0 * effect),
            Measure::Cost => format!("{:.2} times", (-effect).exp()),
        }
    }

    /// Prints the estimate with its interval. An exact number is printed without one.
    pub fn interval(self, interval: Interval) -> String {
        let Interval {
            estimate,
            low,
            high,
        } = interval;
        let ends = match self {
            Measure::Points => format!("{:+.1} to {:+.1}", 100.0 * low, 100.0 * high),
            Measure::Slope => format!("{:+.2} to {:+.2}", 100.0 * low, 100.0 * high),
            Measure::Cost if low == high => return format!("{}, exact", self.value(estimate)),
            Measure::Cost => format!("{:.2} to {:.2}", (-high).exp(), (-low).exp()),
        };
        format!("{} ({ends})", self.value(estimate))
    }
}

/// A value that a contrast uses.
#[derive(Clone, Debug)]
pub struct Cell {
    pub ours: Option<Measured>,
    pub paper: Option<f64>,
    pub training: String,
}

/// The formula that is applied to the values of a unit.
#[derive(Clone, Debug)]
pub enum Shape {
    /// The weighted sum of the values, minus a constant.
    Weighted(Vec<f64>, f64),
    /// The least-squares slope of the values over x.
    Slope(Vec<f64>),
    /// The mean of acc(eps)/acc(0) of a first model minus that of a second one. The values of each
    /// model start with acc(0). The field is the number of values of the first model.
    Retention(usize),
}

/// Returns the mean of acc(eps)/acc(0), and its gradient with respect to the accuracies.
fn retention(values: &[f64]) -> (f64, Vec<f64>) {
    let (clean, attacked) = (values[0].max(LEAST_ACCURACY), &values[1..]);
    let each = 1.0 / (attacked.len() as f64 * clean);
    let ratio = attacked.iter().sum::<f64>() * each;
    let gradient = std::iter::once(-ratio / clean).chain(attacked.iter().map(|_| each));
    (ratio, gradient.collect())
}

impl Shape {
    /// Returns the result for `values`, and its gradient.
    fn evaluate(&self, values: &[f64]) -> (f64, Vec<f64>) {
        let weighted = |weights: &[f64], offset: f64| {
            let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
            (sum - offset, weights.to_vec())
        };
        match self {
            Shape::Weighted(weights, offset) => weighted(weights, *offset),
            Shape::Slope(x) => weighted(&slope_weights(x), 0.0),
            Shape::Retention(split) => {
                let (first, mut gradient) = retention(&values[..*split]);
                let (second, other) = retention(&values[*split..]);
                gradient.extend(other.iter().map(|g| -g));
                (first - second, gradient)
            }
        }
    }
}

/// The smallest contrast: one value against chance, a pair, a series or two curves.
#[derive(Clone, Debug)]
pub struct Unit {
    pub shape: Shape,
    pub cells: Vec<Cell>,
}

impl Unit {
    pub fn difference(higher: Cell, lower: Cell) -> Self {
        Unit {
            shape: Shape::Weighted(vec![1.0, -1.0], 0.0),
            cells: vec![higher, lower],
        }
    }

    /// Returns the unit restricted to the cells for which `have` is true, or `None` if they are too
    /// few. A slope needs at least two cells; any other shape needs all.
    fn of(&self, have: &dyn Fn(&Cell) -> bool) -> Option<Unit> {
        if let Shape::Slope(x) = &self.shape {
            let there = x.iter().zip(&self.cells).filter(|(_, cell)| have(cell));
            let (x, cells): (Vec<f64>, Vec<Cell>) = there.map(|(x, c)| (*x, c.clone())).unzip();
            let shape = Shape::Slope(x);
            return (cells.len() >= 2).then_some(Unit { shape, cells });
        }
        self.cells.iter().all(have).then(|| self.clone())
    }
}

/// One effect: the mean over groups of the mean over each group's units.
#[derive(Clone, Debug)]
pub struct Part {
    /// The description of the effect.
    pub what: String,
    pub measure: Measure,
    /// Groups of units, each with the name of the runs that it needs. Every group must have at
    /// least one unit with values.
    pub groups: Vec<(String, Vec<Unit>)>,
    pub pooling: Pooling,
    /// The prior spread over seeds.
    pub prior: f64,
    /// Whether the claim's answer depends on it.
    pub decides: bool,
}

impl Part {
    /// Returns the units whose cells exist, with their weights, or `None` if a group has no such
    /// unit.
    fn units(&self, have: &dyn Fn(&Cell) -> bool) -> Option<Vec<(f64, Unit)>> {
        let mut all = Vec::new();
        for (_, units) in &self.groups {
            let there: Vec<Unit> = units.iter().filter_map(|unit| unit.of(have)).collect();
            let weight = 1.0 / (there.len() * self.groups.len()) as f64;
            if there.is_empty() {
                return None;
            }
            all.extend(there.into_iter().map(|unit| (weight, unit)));
        }
        Some(all)
    }

    fn contrast(&self) -> Option<Contrast> {
        let (mut estimate, mut terms) = (0.0, Vec::new());
        for (weight, unit) in self.units(&|cell| cell.ours.is_some())? {
            let measured: Vec<Measured> = unit.cells.iter().flat_map(|c| c.ours.clone()).collect();
            let values: Vec<f64> = measured.iter().map(Measured::mean).collect();
            let (value, gradient) = unit.shape.evaluate(&values);
            estimate += weight * value;
            for ((value, gradient), cell) in measured.into_iter().zip(gradient).zip(unit.cells) {
                terms.push(Term {
                    weight: weight * gradient,
                    value,
                    training: cell.training,
                });
            }
        }
        Some(Contrast {
            estimate,
            terms,
            pooling: self.pooling,
            prior: self.prior,
        })
    }

    /// Returns the paper's effect over the cells that we measured, or over all cells of the paper
    /// if a kind of run is missing.
    fn paper(&self) -> Option<f64> {
        let units = self.units(&|cell| cell.ours.is_some());
        let units = units.or_else(|| self.units(&|cell| cell.paper.is_some()))?;
        let effect = units.iter().map(|(weight, unit)| {
            let values: Option<Vec<f64>> = unit.cells.iter().map(|cell| cell.paper).collect();
            Some(weight * unit.shape.evaluate(&values?).0)
        });
        effect.sum()
    }

    /// Returns the number of values that were measured, and the number of a complete grid.
    fn counts(&self) -> (usize, usize) {
        let count = |units: &[Unit]| units.iter().map(|unit| unit.cells.len()).sum::<usize>();
        let there = |units: &[Unit]| {
            let there = units.iter().filter_map(|u| u.of(&|c| c.ours.is_some()));
            there.map(|unit| unit.cells.len()).sum::<usize>()
        };
        let groups = || self.groups.iter().map(|(_, units)| units);
        (
            groups().map(|u| there(u)).sum(),
            groups().map(|u| count(u)).sum(),
        )
    }

    /// Returns the kinds of runs that are missing.
    fn missing(&self) -> impl Iterator<Item = &str> {
        let none = |units: &[Unit]| units.iter().all(|u| u.of(&|c| c.ours.is_some()).is_none());
        let groups = self.groups.iter().filter(move |(_, units)| none(units));
        groups.map(|(name, _)| name.as_str())
    }

    fn finding(&self, level: f64) -> Finding {
        Finding {
            what: self.what.clone(),
            measure: self.measure,
            ours: self.contrast().map(|contrast| contrast.interval(level)),
            paper: self.paper(),
            values: self.counts(),
            decides: self.decides,
        }
    }
}

/// The result of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub what: String,
    pub measure: Measure,
    pub ours: Option<Interval>,
    pub paper: Option<f64>,
    /// The number of values behind it, and the number of a complete grid.
    pub values: (usize, usize),
    pub decides: bool,
}

impl Finding {
    pub fn ours(&self) -> String {
        self.ours.map_or("not run".to_string(), |interval| {
            self.measure.interval(interval)
        })
    }

    pub fn paper(&self) -> String {
        self.paper
            .map_or("no number".to_string(), |effect| self.measure.value(effect))
    }

    fn answer(&self) -> Answer {
        match self.ours {
            None => Answer::NotTested,
            Some(Interval { low, .. }) if low > 0.0 => Answer::Supported,
            Some(Interval { high, .. }) if high < 0.0 => Answer::Contradicted,
            Some(_) => Answer::NotDecided,
        }
    }
}

/// A claim as it is tested.
pub struct Question {
    pub number: usize,
    pub statement: &'static str,
    /// Effects that must be significantly above 0. Otherwise the claim is not tested, and the
    /// description of the condition is the reason.
    pub conditions: Vec<Part>,
    pub parts: Vec<Part>,
}

/// A claim with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub number: usize,
    pub statement: &'static str,
    pub answer: Answer,
    /// One sentence.
    pub reason: String,
    pub findings: Vec<Finding>,
}

impl Question {
    pub fn answer(&self) -> Claim {
        let level = FAMILY_ERROR / CLAIMS;
        let deciding = self.parts.iter().filter(|p| p.decides).count().max(1) as f64;
        let one_sided = level / deciding / 2.0;
        let findings: Vec<Finding> = self.parts.iter().map(|p| p.finding(one_sided)).collect();
        let (answer, reason) = match self.obstacle(level) {
            Some(reason) => (Answer::NotTested, reason),
            None => conclusion(&findings),
        };
        Claim {
            number: self.number,
            statement: self.statement,
            answer,
            reason,
            findings,
        }
    }

    /// Returns the reason why the claim cannot be tested, if there is one.
    fn obstacle(&self, level: f64) -> Option<String> {
        let needed = self.parts.iter().filter(|p| p.decides);
        let mut missing: Vec<&str> = needed
            .chain(&self.conditions)
            .flat_map(Part::missing)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            return Some(format!("Not run: {}.", missing.join("; ")));
        }
        self.conditions.iter().find_map(|condition| {
            let finding = condition.finding(level);
            let Interval { low, .. } = finding.ours?;
            (low <= 0.0).then(|| {
                format!(
                    "{}: {}, lower bound {}.",
                    finding.what,
                    finding
                        .measure
                        .value(finding.ours.map_or(0.0, |i| i.estimate)),
                    finding.measure.value(low)
                )
            })
        })
    }
}

fn conclusion(findings: &[Finding]) -> (Answer, String) {
    let deciding = || findings.iter().filter(|f| f.decides);
    let with = |answer: Answer| deciding().find(move |f| f.answer() == answer);
    let (answer, finding, why) = if let Some(finding) = with(Answer::Contradicted) {
        (
            Answer::Contradicted,
            finding,
            "The effect contradicts the claim",
        )
    } else if let Some(finding) = with(Answer::NotDecided) {
        (
            Answer::NotDecided,
            finding,
            "The interval includes a zero effect",
        )
    } else if let Some(finding) = with(Answer::Supported) {
        (
            Answer::Supported,
            finding,
            "The effect agrees with the claim",
        )
    } else {
        return (Answer::NotTested, "No effect is compared.".to_string());
    };
    let what = match answer {
        Answer::Supported if deciding().count() > 1 => "each part",
        _ => &finding.what,
    };
    let (there, all) = deciding().fold((0, 0), |(there, all), finding| {
        (there + finding.values.0, all + finding.values.1)
    });
    (
        answer,
        format!("{why} ({what}), over {there} of {all} values."),
    )
}
