//! Drawings of what was measured: a case as horizontal bars, in SVG. Called by `main`.

use std::fmt::Write as _;

/// Pixels.
const WIDTH: f64 = 640.0;
/// At least; longer names take a letter's width for each letter.
const NAMES: f64 = 130.0;
const LETTER: f64 = 6.8;
const NUMBERS: f64 = 110.0;
const BAR: f64 = 22.0;
const GAP: f64 = 8.0;
const TITLE: f64 = 34.0;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Before it.
    pub name: String,
    /// How long it is, in what the title says.
    pub value: f64,
    /// From where to where the thin line over its end goes.
    pub range: Option<[f64; 2]>,
    /// Ours, in a colour of its own.
    pub ours: bool,
}

/// Bars below each other, from 0 to the longest. Readable on light and dark pages.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = TITLE + bars.len() as f64 * (BAR + GAP);
    let longest = bars.iter().map(|bar| bar.range.map_or(bar.value, |[_, end]| end.max(bar.value)));
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    let names = bars.iter().map(|bar| bar.name.chars().count() as f64 * LETTER).fold(NAMES, f64::max).round();
    let scale = (WIDTH - names - NUMBERS) / longest;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#808080\">\n<text x=\"0\" y=\"16\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for (n, bar) in bars.iter().enumerate() {
        let top = TITLE + n as f64 * (BAR + GAP);
        let middle = top + BAR / 2.0;
        let (colour, end) = (if bar.ours { "#2a7fb8" } else { "#b0b0b0" }, names + bar.value * scale);
        let text = names + bar.range.map_or(bar.value, |[_, end]| end.max(bar.value)) * scale + 8.0;
        let _infallible = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{names}\" y=\"{top:.0}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <text x=\"{text:.0}\" y=\"{:.0}\">{:.1}</text>\n",
            names - 8.0,
            middle + 4.0,
            escaped(&bar.name),
            end - names,
            middle + 4.0,
            bar.value
        );
        if let Some([from, to]) = bar.range {
            let _infallible = writeln!(
                svg,
                "<path d=\"M{:.1} {middle:.0}H{:.1}\" stroke=\"#404040\" stroke-width=\"2\"/>",
                names + from * scale,
                names + to * scale
            );
        }
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_drawing_and_others_are_in_proportion() {
        let bar = |name: &str, value| Bar { name: name.into(), value, range: None, ours: false };
        let svg = bars("CPU < 1", &[bar("a", 40.0), bar("b", 10.0)]);
        assert!(svg.contains("CPU &lt; 1"));
        assert!(svg.contains("width=\"400.0\"") && svg.contains("width=\"100.0\""), "{svg}");
    }
}
