// Resized crops: bilinear, antialiased, half-pixel centres. The weights are the integers of
// src/ops/resized_crop/cpu.rs, exact in 32 bits for sides up to 16,384: result pixel i of `to` uses
// source pixel j of `from` with weight 2 max(from, to) - |(2j + 1) to - (2i + 1) from|, if that is
// positive. One element of y per invocation, workgroups of 256 along one dimension.

#import grid

struct Params {
    // The number of elements of y.
    count: u32,
    // Elements of a binding before its first image.
    x_offset: u32,
    y_offset: u32,
    channels: u32,
    height: u32,
    width: u32,
    // Height and width of a result.
    size: u32,
    // The number of the first image in x.
    first_image: u32,
}

struct Crop {
    image: u32,
    top: u32,
    left: u32,
    height: u32,
    width: u32,
    flip: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> crops: array<Crop>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// The first source pixel with a positive weight: the first j with (2j + 1) to > center - radius.
fn first_tap(center: i32, radius: i32, to: i32) -> i32 {
    let before = center - radius;
    if before < 0 {
        return 0;
    }
    return (before / to + 1) / 2;
}

@compute @workgroup_size(256)
fn resized_crop(at: Invocation) {
    let index = index256(at);
    if index >= params.count {
        return;
    }
    let size = params.size;
    let plane = index / (size * size);
    let crop = crops[plane / params.channels];
    let row = index % (size * size) / size;
    var column = index % size;
    if crop.flip != 0u {
        column = size - 1u - column;
    }

    let to = i32(size);
    let crop_height = i32(crop.height);
    let crop_width = i32(crop.width);
    let row_radius = 2 * max(crop_height, to);
    let column_radius = 2 * max(crop_width, to);
    let row_center = (2 * i32(row) + 1) * crop_height;
    let column_center = (2 * i32(column) + 1) * crop_width;
    let first_row = first_tap(row_center, row_radius, to);
    let first_column = first_tap(column_center, column_radius, to);
    let image = (crop.image - params.first_image) * params.channels + plane % params.channels;
    let corner = params.x_offset + (image * params.height + crop.top) * params.width + crop.left;

    var sum = 0.0;
    var row_weights = 0;
    var column_weights = 0;
    for (var i = first_row; i < crop_height; i++) {
        let row_weight = row_radius - abs((2 * i + 1) * to - row_center);
        if row_weight <= 0 {
            break;
        }
        let line = corner + u32(i) * params.width;
        var line_sum = 0.0;
        column_weights = 0;
        for (var j = first_column; j < crop_width; j++) {
            let column_weight = column_radius - abs((2 * j + 1) * to - column_center);
            if column_weight <= 0 {
                break;
            }
            line_sum += f32(column_weight) * x[line + u32(j)];
            column_weights += column_weight;
        }
        sum += f32(row_weight) * line_sum;
        row_weights += row_weight;
    }
    y[params.y_offset + index] = sum / (f32(row_weights) * f32(column_weights));
}
