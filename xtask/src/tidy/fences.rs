//! The blocks of code of a page, by any fence that Markdown knows.

/// One block: what stands behind its fence, and its lines with their numbers.
#[derive(Default)]
pub(super) struct Block<'a> {
    pub(super) info: &'a str,
    pub(super) lines: Vec<(usize, &'a str)>,
}

/// A block that is set off by four blanks has no fence, and so nothing behind it; each of its lines is one block here.
pub(super) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Block<'_>)> = None;
    for (index, line) in page.lines().enumerate() {
        let text = line.trim_start_matches([' ', '\t', '>']);
        let fence = fence(text);
        match &mut open {
            None if !fence.is_empty() => {
                open = Some((fence, Block { info: text[fence.len()..].trim(), lines: Vec::new() }));
            }
            None if line.trim_start_matches('>').starts_with("    ") => {
                blocks.push(Block { info: "", lines: vec![(index + 1, line)] });
            }
            None => {}
            Some((begin, _)) if fence.starts_with(*begin) && text.trim_end() == fence => {
                blocks.extend(open.take().map(|(_, block)| block));
            }
            Some((_, block)) => block.lines.push((index + 1, line)),
        }
    }
    blocks.extend(open.map(|(_, block)| block));
    blocks
}

/// The fence that a line begins with, which is of three graves or tildes at least; else nothing.
fn fence(text: &str) -> &str {
    let length = |mark: char| text.len() - text.trim_start_matches(mark).len();
    let length = length('`').max(length('~'));
    if length < 3 { "" } else { &text[..length] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fence_is_closed_by_its_own() {
        let page = "~~~a\n```\n~~~\n````b c\n```\n`````\n  > ```d\n  > e\n  > ```\n\n    f\n```g\nh";
        let found: Vec<_> = blocks(page).iter().map(|block| (block.info, block.lines.len())).collect();
        assert_eq!(found, [("a", 1), ("b c", 1), ("d", 1), ("", 1), ("g", 1)]);
    }
}
