//! Requests per minute over the day, as an SVG.

use crate::day::{HOUR, MINUTE};
use crate::report::{Ways, clock};
use crate::scenarios::Size;

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 55.0;
/// Told apart by those who see red and green alike, too.
const COLOURS: [&str; 3] = ["#0b5fa5", "#d9822b", "#7a4fa3"];

/// From figures to points of the picture.
struct Plane {
    minutes: f64,
    most: f64,
}

impl Plane {
    fn x(&self, minute: f64) -> f64 {
        LEFT + minute / self.minutes * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, count: f64) -> f64 {
        HEIGHT - BOTTOM - count / self.most * (HEIGHT - TOP - BOTTOM)
    }

    fn line(&self, minutes: &[u32]) -> String {
        let point = |(minute, count): (usize, &u32)| {
            format!("{:.1},{:.1}", self.x(minute as f64), self.y(f64::from(*count)))
        };
        minutes.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
    }
}

fn text(x: f64, y: f64, more: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {more}>{words}</text>\n")
}

fn rule(from: (f64, f64), to: (f64, f64), more: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {more}/>\n",
        from.0, from.1, to.0, to.1
    )
}

pub(crate) fn svg(ways: &Ways<'_>, size: Size) -> String {
    let budget = f64::from(size.per_minute());
    let minutes = ways[0].1.minutes.len();
    let plane = Plane { minutes: minutes as f64, most: budget * 1.1 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let title = format!("Requests to Okta per minute, {} users on one sidecar", size.users);
    svg.push_str(&text(LEFT, 20.0, "font-size=\"16\"", &title));
    svg.push_str(&axes(&plane, size, minutes));
    let at = plane.y(budget);
    svg.push_str(&rule((LEFT, at), (WIDTH - RIGHT, at), "stroke=\"#b00020\" stroke-dasharray=\"6 4\""));
    svg.push_str(&text(
        LEFT + 6.0,
        at - 5.0,
        "fill=\"#b00020\"",
        "budget, and the limit of the model of Okta",
    ));
    for (index, (name, ledger)) in ways.iter().enumerate().rev() {
        let colour = COLOURS[index];
        svg.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"/>\n",
            plane.line(&ledger.minutes)
        ));
        let x = WIDTH - RIGHT - 420.0 + index as f64 * 140.0;
        svg.push_str(&rule((x, 31.0), (x + 22.0, 31.0), &format!("stroke=\"{colour}\" stroke-width=\"3\"")));
        svg.push_str(&text(x + 28.0, 36.0, "", name));
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(plane: &Plane, size: Size, minutes: usize) -> String {
    let (mut axes, base) = (String::new(), HEIGHT - BOTTOM);
    let step = size.per_minute() / 4;
    for count in (0..=4).map(|index| index * step) {
        let y = plane.y(f64::from(count));
        axes.push_str(&rule((LEFT, y), (WIDTH - RIGHT, y), "stroke=\"#e2e2e2\""));
        axes.push_str(&text(LEFT - 8.0, y + 4.0, "text-anchor=\"end\"", &count.to_string()));
    }
    let from = size.day().from;
    let hours = if minutes > 12 * 60 { 2 } else { 1 };
    for minute in (0..=minutes).step_by(hours * 60) {
        let x = plane.x(minute as f64);
        axes.push_str(&rule((x, base), (x, base + 5.0), "stroke=\"black\""));
        let time = clock(from + minute as u64 * MINUTE);
        axes.push_str(&text(x, base + 20.0, "text-anchor=\"middle\"", &time));
    }
    debug_assert!(from.is_multiple_of(HOUR), "labels stand at full hours");
    axes.push_str(&rule((LEFT, base), (WIDTH - RIGHT, base), "stroke=\"black\""));
    axes.push_str(&rule((LEFT, TOP), (LEFT, base), "stroke=\"black\""));
    let middle = "text-anchor=\"middle\"";
    axes.push_str(&text(f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 12.0, middle, "time of day"));
    let y = f64::midpoint(TOP, base);
    let turned = format!("{middle} transform=\"rotate(-90 18 {y:.1})\"");
    axes.push_str(&text(18.0, y, &turned, "requests per minute"));
    axes
}
