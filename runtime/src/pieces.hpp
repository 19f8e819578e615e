// A map in pieces that are worked off between two looks at the watch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "watch.hpp"

namespace mpsl {

// Additions that one call of an inner loop may make without a look at the watch: some 50 ms.
constexpr double kLongestCall = double(std::uint64_t(1) << 30);

struct Window {
    int rows, columns;
};

// Of a map: these rows and columns from there on.
struct Piece {
    int row, column, rows, columns;
};

// Calls visit(piece) until the map is covered or the watch says to leave. `pixel`: additions of one
// output; `spent`: since the last look at the watch. A map of usual size is one piece; a row is cut
// only where it alone takes too long.
template <class Visit>
void for_each_piece(Window map, double pixel, double& spent, Watch& watch, Visit visit) {
    const double whole = pixel * map.rows * map.columns;
    if (spent + whole < kLongestCall) {
        spent += whole;
        return visit({0, 0, map.rows, map.columns});
    }
    const double pixels = std::max(1.0, kLongestCall / std::max(1.0, pixel));
    const int columns = int(std::min(double(map.columns), pixels));
    const int rows = columns < map.columns
                         ? 1
                         : int(std::min(double(map.rows), std::max(1.0, pixels / map.columns)));
    for (int row = 0; row < map.rows; row += rows)
        for (int column = 0; column < map.columns; column += columns) {
            if (watch.is_over()) return;
            spent = 0;
            visit({row, column, std::min(rows, map.rows - row),
                   std::min(columns, map.columns - column)});
        }
}

}  // namespace mpsl
