        // Passes the sums to `store`, four columns of one row at a time.
#if MATRIX
#for i in 0..ROWS / 2 / MATRIX
#for j in 0..COLUMNS / 2 / MATRIX
        // naga 30 panics if the index of a coopStore is an expression.
        let to${i}_${j} = subgroup * ${MATRIX * (COLUMNS / 2 + 4)}u + ${j * MATRIX}u;
        coopStoreT(sum${i}_${j}, &c_tile[to${i}_${j}], ${COLUMNS / 2 + 4}u);
#end
        workgroupBarrier();
        for (var q = lane; q < ${MATRIX * COLUMNS / 2}u; q += ${LANES}u) {
            // The row and the quad among those of all subgroups.
            let row = q / ${COLUMNS / 8}u;
            let quad = q % ${COLUMNS / 8}u;
            let by = row / ${MATRIX}u;
            let at = row * ${COLUMNS / 2 + 4}u + quad * 4u;
            store${kind}(
                base,
                first_row + by / 2u * ${ROWS / 2}u + row % ${MATRIX}u + ${i * MATRIX}u,
                first_column,
                by % 2u * ${COLUMNS / 8}u + quad,
                vec4f(c_tile[at], c_tile[at + 1u], c_tile[at + 2u], c_tile[at + 3u]),
            );
        }
        workgroupBarrier();
#end
#else
#for v in 0..QUADS
#for r in 0..8
        store${kind}(
            base, first_row + rows * 4u + ${r / 4 * ROWS / 2 + r % 4}u, first_column, columns + ${16 * v}u, sum${r}_${v});
#end
#end
#end
