package screen

// cp437 is what the firmware's font draws: code page 437, with the signs that are
// drawn for control codes. Source: Unicode, MAPPINGS/VENDORS/MICSFT/PC/CP437.TXT and
// MAPPINGS/VENDORS/MISC/IBMGRAPH.TXT.
var cp437 = []rune("" +
	" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼" +
	" !\"#$%&'()*+,-./0123456789:;<=>?" +
	"@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_" +
	"`abcdefghijklmnopqrstuvwxyz{|}~⌂" +
	"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ" +
	"áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀" +
	"αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ")

// preferred are the codes in the order in which one is taken where several are drawn
// alike: what people read first, then letters and lines, then signs.
var preferred = func() (codes [256]byte) {
	at := 0
	for _, span := range [][2]int{{0x20, 0x7e}, {0x80, 0xff}, {0x00, 0x1f}, {0x7f, 0x7f}} {
		for code := span[0]; code <= span[1]; code++ {
			codes[at] = byte(code)
			at++
		}
	}
	return codes
}()
