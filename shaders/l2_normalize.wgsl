// Rows of x [N, D], scaled to length 1.
//
//   l2_normalize           norm_i = max(|x_i|, eps), y_i = x_i / norm_i
//   l2_normalize_backward  dx_i = (dy_i - y_i (y_i . dy_i)) / norm_i; dy_i / norm_i if norm_i = eps
//
// One workgroup of 64 per row. Before x is squared, it is divided by its largest magnitude in the
// row, so that no square overflows or underflows. Bindings contain some of the rows, after
// row_offset (norm) or offset (x, y) elements.

#import grid
#import reduce64

struct Params {
    rows: u32,
    columns: u32,
    offset: u32,
    row_offset: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// dy in the backward pass.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> norm: array<f32>;
// y in the forward pass, dx in the backward pass.
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_norm: array<f32>;

@compute @workgroup_size(64)
fn l2_normalize(at: Invocation) {
    // Workgroups beyond the last row repeat it and store nothing.
    let row = min(workgroup_index(at), params.rows - 1u);
    let start = params.offset + row * params.columns;
    var largest = 0.0;
    for (var i = at.lane; i < params.columns; i += 64u) {
        largest = max(largest, abs(x[start + i]));
    }
    largest = workgroup_max(at.lane, largest);
    let unit = select(1.0, largest, largest > 0.0);
    var square = 0.0;
    for (var i = at.lane; i < params.columns; i += 64u) {
        let part = x[start + i] / unit;
        square += part * part;
    }
    let len = max(unit * sqrt(workgroup_sum(at.lane, square)), params.eps);
    if workgroup_index(at) < params.rows {
        if at.lane == 0u {
            new_norm[params.row_offset + row] = len;
        }
        for (var i = at.lane; i < params.columns; i += 64u) {
            result[start + i] = x[start + i] / len;
        }
    }
}

@compute @workgroup_size(64)
fn l2_normalize_backward(at: Invocation) {
    let row = min(workgroup_index(at), params.rows - 1u);
    let start = params.offset + row * params.columns;
    var product = 0.0;
    for (var i = at.lane; i < params.columns; i += 64u) {
        product += x[start + i] * y[start + i];
    }
    product = workgroup_sum(at.lane, product);
    let len = norm[params.row_offset + row];
    let along = select(0.0, product, len > params.eps);
    if workgroup_index(at) < params.rows {
        for (var i = at.lane; i < params.columns; i += 64u) {
            result[start + i] = (x[start + i] - y[start + i] * along) / len;
        }
    }
}
