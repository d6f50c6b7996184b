//! Text between tags and between quotes.

use super::escape;

#[test]
fn nothing_gets_out_of_its_place() {
    assert_eq!(escape("<a href='x' b=\"y\">&amp;"), "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;amp;");
    assert_eq!(escape("größe → ~"), "größe → ~");
    assert_eq!(escape("\u{1b}\0\u{ffff}"), "\u{fffd}\u{fffd}\u{fffd}");
}
