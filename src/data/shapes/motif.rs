//! The ten classes as point sets around the origin, each about as large as the unit disc.

/// A class: its name, and whether the point (x, y) belongs to its shape.
pub struct Motif {
    pub name: &'static str,
    pub contains: fn(f32, f32) -> bool,
}

const fn motif(name: &'static str, contains: fn(f32, f32) -> bool) -> Motif {
    Motif { name, contains }
}

/// The classes by label. All have the same area, so that the class does not depend on the lightness
/// of an image. None is the mirror image of another, so that a flip does not change the class.
pub const MOTIFS: [Motif; 10] = [
    motif("disc", |x, y| in_disc(x, y, 0.778)),
    motif("ring", |x, y| in_disc(x, y, 1.0) && !in_disc(x, y, 0.63)),
    motif("square", |x, y| in_box(x, y, 0.689, 0.689)),
    motif("frame", |x, y| {
        in_box(x, y, 1.0, 1.0) && !in_box(x, y, 0.725, 0.725)
    }),
    motif("triangle", |x, y| {
        y > -0.605 && 0.866_025_4 * x.abs() + 0.5 * y < 0.605
    }),
    motif("cross", in_cross),
    motif("saltire", |x, y| diagonal(x, y, in_cross)),
    motif("bar", in_bar),
    motif("post", |x, y| in_bar(y, x)),
    motif("slash", |x, y| diagonal(x, y, in_bar)),
];

/// The radius of a circle around the origin that holds every shape.
pub const REACH: f32 = 1.45;

fn in_disc(x: f32, y: f32, radius: f32) -> bool {
    x * x + y * y < radius * radius
}

fn in_box(x: f32, y: f32, half_width: f32, half_height: f32) -> bool {
    x.abs() < half_width && y.abs() < half_height
}

fn in_cross(x: f32, y: f32) -> bool {
    in_box(x, y, 1.1, 0.243) || in_box(x, y, 0.243, 1.1)
}

fn in_bar(x: f32, y: f32) -> bool {
    in_box(x, y, 1.3, 0.365)
}

/// The shape `contains`, turned by 45 degrees.
fn diagonal(x: f32, y: f32, contains: fn(f32, f32) -> bool) -> bool {
    let half_root = std::f32::consts::FRAC_1_SQRT_2;
    contains(half_root * (x + y), half_root * (y - x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The area of every shape in square units.
    const AREA: f32 = 1.9;

    #[test]
    fn every_shape_has_the_same_area_and_stays_in_reach() {
        for Motif { name, contains } in MOTIFS {
            let mut inside = 0;
            for row in -200..200 {
                for column in -200..200 {
                    let (x, y) = ((column as f32 + 0.5) * 0.01, (row as f32 + 0.5) * 0.01);
                    if contains(x, y) {
                        assert!(x * x + y * y < REACH * REACH, "{name} at {x}, {y}");
                        inside += 1;
                    }
                }
            }
            let area = inside as f32 * 1e-4;
            assert!((area - AREA).abs() < 0.02 * AREA, "{name}: {area}");
        }
    }
}
