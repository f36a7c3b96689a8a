//! The ten classes as point sets around the origin, each about as large as the unit disc.

/// Class names by label. None is the mirror image of another, so a flip keeps the class.
pub const CLASSES: [&str; 10] = [
    "disc", "ring", "square", "frame", "triangle", "star", "cross", "crescent", "bar", "trefoil",
];

/// True if the point (x, y) belongs to the shape of class `label`, which is below 10. Every shape lies within the
/// circle of radius [`REACH`].
pub fn contains(label: u32, x: f32, y: f32) -> bool {
    let square = x.abs().max(y.abs());
    match CLASSES[label as usize] {
        "disc" => in_disc(x, y, 0.0, 0.0, 0.95),
        "ring" => in_disc(x, y, 0.0, 0.0, 1.1) && !in_disc(x, y, 0.0, 0.0, 0.62),
        "square" => square < 0.85,
        "frame" => square < 1.0 && square > 0.55,
        "triangle" => y > -0.65 && 0.866_025_4 * x.abs() + 0.5 * y < 0.6,
        "star" => in_star(x, y),
        "cross" => x.abs().min(y.abs()) < 0.3 && square < 1.15,
        "crescent" => in_disc(x, y, 0.0, 0.0, 1.1) && !in_disc(x, y, 0.55, 0.0, 0.9),
        "bar" => x.abs() < 1.2 && y.abs() < 0.34,
        _ => TREFOIL.iter().any(|&(cx, cy)| in_disc(x, y, cx, cy, 0.5)),
    }
}

/// The radius of a circle around the origin that holds every shape.
pub const REACH: f32 = 1.45;

/// Centres of the trefoil's three discs, 120 degrees apart and 0.7 from the origin.
const TREFOIL: [(f32, f32); 3] = [(0.0, 0.7), (-0.606_217_8, -0.35), (0.606_217_8, -0.35)];

fn in_disc(x: f32, y: f32, centre_x: f32, centre_y: f32, radius: f32) -> bool {
    let (dx, dy) = (x - centre_x, y - centre_y);
    dx * dx + dy * dy < radius * radius
}

/// Directions of the normals of a pentagram's five lines, 72 degrees apart.
const PENTAGRAM: [(f32, f32); 5] = [
    (0.0, -1.0),
    (0.951_056_5, -0.309_017),
    (0.587_785_25, 0.809_017),
    (-0.587_785_25, 0.809_017),
    (-0.951_056_5, -0.309_017),
];

/// A pentagram with its points 1.25 from the origin: a point belongs to it if it is outside at most one of the five
/// lines.
fn in_star(x: f32, y: f32) -> bool {
    // Each line passes at cos 72 degrees of the points' distance.
    let limit = 1.25 * 0.309_017;
    PENTAGRAM
        .iter()
        .filter(|&&(nx, ny)| nx * x + ny * y > limit)
        .count()
        <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(label: u32) -> f32 {
        let mut inside = 0;
        for row in -200..200 {
            for column in -200..200 {
                let (x, y) = ((column as f32 + 0.5) * 0.01, (row as f32 + 0.5) * 0.01);
                if contains(label, x, y) {
                    assert!(
                        x * x + y * y < REACH * REACH,
                        "{} at {x}, {y}",
                        CLASSES[label as usize]
                    );
                    inside += 1;
                }
            }
        }
        inside as f32 * 1e-4
    }

    #[test]
    fn areas_are_those_of_geometry() {
        use std::f32::consts::PI;
        // An equilateral triangle of inradius r has the area 3 sqrt(3) r^2; this one has sides at 0.65, 0.6, 0.6.
        let expected = [
            PI * 0.95 * 0.95,
            PI * (1.1 * 1.1 - 0.62 * 0.62),
            4.0 * 0.85 * 0.85,
            4.0 * (1.0 - 0.55 * 0.55),
            (0.65f32 + 0.6 + 0.6).powi(2) / 3f32.sqrt(),
            // 10 triangles between a point (distance 1.25) and the nearest inner corner (distance 1.25 x 0.381966).
            10.0 * 0.5 * 1.25 * (1.25 * 0.381_966) * 0.587_785_25,
            2.0 * 0.6 * 2.3 - 0.36,
        ];
        for (label, expected) in expected.into_iter().enumerate() {
            let found = area(label as u32);
            assert!(
                (found - expected).abs() < 0.02 * expected,
                "{}: {found}, not {expected}",
                CLASSES[label]
            );
        }
        for label in 7..10 {
            assert!(area(label) > 1.0, "{}", CLASSES[label as usize]);
        }
    }
}
