    // The tile and the split of this workgroup, for a result of sizes.x rows, sizes.y columns and
    // sizes.z terms, per_split of them in each split. Surplus workgroups beyond the last split have
    // no terms and store nothing.
    let row_tiles = (sizes.x + ${ROWS - 1}u) / ${ROWS}u;
    let column_tiles = (sizes.y + ${COLUMNS - 1}u) / ${COLUMNS}u;
    let index = workgroup_index(at);
    let split = index / (row_tiles * column_tiles);
    let tile = index - split * row_tiles * column_tiles;
    let band = tile / (8u * column_tiles);
    let in_band = tile - band * 8u * column_tiles;
    let height = min(8u, row_tiles - band * 8u);
    let first_row = (band * 8u + in_band % height) * ${ROWS}u;
    let first_column = in_band / height * ${COLUMNS}u;
    let first = min(split * per_split, sizes.z);
    let end = min(first + per_split, sizes.z);

    let lane = at.lane;
    // This lane loads these four rows of A, and from these terms of a block on.
    let a_by_terms = params.a_by_terms != 0u;
    let a_quad = select(lane / 4u, lane % ${ROWS / 4}u, a_by_terms);
    let a_term = select(lane % 4u, lane / ${ROWS / 4}u, a_by_terms) * 4u;
    let a_row = first_row + a_quad * 4u;
    let a_lines = select(sizes.x, sizes.z, a_by_terms);
    let a_last = select(sizes.z, sizes.x, a_by_terms) - 1u;
