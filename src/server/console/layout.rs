//! Where the operators of a picture stand: in layers along the way of the rows, by the method of
//! Sugiyama, from top to bottom.

use rust_sugiyama::configure::Config;

/// Width and height of an operator's box, and the room around it, in pixels.
pub(super) const BOX: (f64, f64) = (232.0, 76.0);
const ROOM: f64 = 44.0;

/// Operators that are laid out; more than that nobody sees through.
pub(super) const NODES_MAX: usize = 400;

/// The middles of boxes, and what all of them take.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Layout {
    /// By number of the box.
    pub(super) places: Vec<(u32, f64, f64)>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Lays out boxes with these numbers and lines between them, which go round in no circle.
pub(super) fn lay_out(boxes: &[u32], lines: &[(u32, u32)]) -> Layout {
    let config = Config { vertex_spacing: ROOM, dummy_size: 0.6, ..Config::default() };
    // The crate tells places by the order in which it was handed the boxes.
    let order = |id: &u32| boxes.iter().position(|other| other == id).and_then(number);
    let sized: Vec<(u32, (f64, f64))> =
        (0..boxes.len()).filter_map(number).map(|at| (at, BOX)).collect();
    let between = lines.iter().filter_map(|(from, to)| Some((order(from)?, order(to)?)));
    let lines: Vec<(u32, u32)> = between.collect();
    let parts = rust_sugiyama::from_vertices_and_edges(&sized, &lines, &config);
    let mut layout = Layout::default();
    for (places, ..) in parts {
        let least = |of: fn(&(f64, f64)) -> f64| {
            places.iter().map(|(_, at)| of(at)).fold(f64::INFINITY, f64::min)
        };
        let (left, top) = (least(|at| at.0), least(|at| at.1));
        let from = if layout.width == 0.0 { ROOM / 2.0 } else { layout.width };
        for (at, (x, y)) in places {
            let Some(id) = boxes.get(at) else { continue };
            let (x, y) = (x - left + from + BOX.0 / 2.0, y - top + (ROOM + BOX.1) / 2.0);
            layout.width = layout.width.max(x + (BOX.0 + ROOM) / 2.0);
            layout.height = layout.height.max(y + (BOX.1 + ROOM) / 2.0);
            layout.places.push((*id, x, y));
        }
    }
    layout
}

fn number(at: usize) -> Option<u32> {
    u32::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_do_not_lie_on_one_another_and_rows_go_down() {
        // Two inputs that are joined, one of them read twice; a box apart.
        let lines = [(1, 3), (2, 3), (3, 5), (1, 4), (4, 5), (5, 6)];
        let layout = lay_out(&[1, 2, 3, 4, 5, 6, 9], &lines);
        let place = |id| {
            let found = layout.places.iter().find(|(number, ..)| *number == id);
            found.map(|(_, x, y)| (*x, *y)).expect("every box has a place")
        };
        for (from, to) in lines {
            assert!(place(to).1 - place(from).1 >= BOX.1, "{from} is above {to}: {layout:?}");
        }
        for (at, (a, ax, ay)) in layout.places.iter().enumerate() {
            assert!(*ax >= BOX.0 / 2.0 && ax + BOX.0 / 2.0 <= layout.width, "{layout:?}");
            assert!(*ay >= BOX.1 / 2.0 && ay + BOX.1 / 2.0 <= layout.height, "{layout:?}");
            for (b, bx, by) in &layout.places[..at] {
                let apart = (ax - bx).abs() >= BOX.0 || (ay - by).abs() >= BOX.1;
                assert!(apart, "{a} lies on {b}: {layout:?}");
            }
        }
    }
}
