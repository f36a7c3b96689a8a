            // Stores the four terms that a lane loaded.
            if lane < ${ROWS}u {
#for i in 0..4
                a_tile[a_at(half, a_term + ${i}u, a_quad)] = part0[${i}];
#end
            }
            if lane >= ${LANES - COLUMNS}u {
#for i in 0..4
                b_tile[b_at(half, b_term + ${i}u, b_quad)] = part${PART}[${i}];
#end
            }
