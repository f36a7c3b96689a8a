// Conversion from bytes, normalisation, padded crops and quarter turns of images [N, C, H, W].
//
//   gather       y[b] = bytes of image indices[b] / 255, if it is one of the stored images
//   normalize    y = (x - mean) / std per channel
//   padded_crop  y = x, moved and flipped; padding is 0
//   rotate90     y = x, turned counter-clockwise
//
// `indices` has the image numbers of gather, (top, left, flip) per image of padded_crop, and the
// quarter turns per image of rotate90. One element of y per invocation, workgroups of 256 along one
// dimension. The bindings start x_offset and y_offset elements before the first image.

#import grid

struct Params {
    // The number of elements of y.
    count: u32,
    x_offset: u32,
    y_offset: u32,
    channels: u32,
    height: u32,
    width: u32,
    // gather: the number of the first stored image, and the number of stored images.
    first: u32,
    stored: u32,
    // padded_crop.
    padding: u32,
    // normalize.
    mean0: f32,
    mean1: f32,
    mean2: f32,
    std0: f32,
    std1: f32,
    std2: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Four bytes per word, the first in the lowest bits.
@group(0) @binding(1) var<storage, read> bytes: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn gather(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let image_len = params.channels * params.height * params.width;
    // Wraps around to a large number if the image is before the first stored image.
    let image = indices[i / image_len] - params.first;
    if image < params.stored {
        let byte = params.x_offset + image * image_len + i % image_len;
        let value = (bytes[byte / 4u] >> (8u * (byte % 4u))) & 0xffu;
        y[params.y_offset + i] = f32(value) / 255.0;
    }
}

@compute @workgroup_size(256)
fn normalize(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    var mean = params.mean0;
    var deviation = params.std0;
    let channel = i / (params.height * params.width) % 3u;
    if channel == 1u {
        mean = params.mean1;
        deviation = params.std1;
    }
    if channel == 2u {
        mean = params.mean2;
        deviation = params.std2;
    }
    y[params.y_offset + i] = (x[params.x_offset + i] - mean) / deviation;
}

@compute @workgroup_size(256)
fn padded_crop(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let plane_len = params.height * params.width;
    let plane = i / plane_len;
    let crop = 3u * (plane / params.channels);
    let top = indices[crop];
    let left = indices[crop + 1u];
    var column = i % params.width;
    if indices[crop + 2u] != 0u {
        column = params.width - 1u - column;
    }
    // Both wrap around to a large number above and left of the image.
    let from_row = i % plane_len / params.width + top - params.padding;
    let from_column = column + left - params.padding;
    var value = 0.0;
    if from_row < params.height && from_column < params.width {
        value = x[params.x_offset + plane * plane_len + from_row * params.width + from_column];
    }
    y[params.y_offset + i] = value;
}

@compute @workgroup_size(256)
fn rotate90(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let size = params.width;
    let plane = i / (size * size);
    let row = i % (size * size) / size;
    let column = i % size;
    var from_row = row;
    var from_column = column;
    switch indices[plane / params.channels] {
        case 1u: {
            from_row = column;
            from_column = size - 1u - row;
        }
        case 2u: {
            from_row = size - 1u - row;
            from_column = size - 1u - column;
        }
        case 3u: {
            from_row = size - 1u - column;
            from_column = row;
        }
        default: {}
    }
    y[params.y_offset + i] = x[params.x_offset + (plane * size + from_row) * size + from_column];
}
