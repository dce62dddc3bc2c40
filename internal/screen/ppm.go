package screen

import (
	"bufio"
	"image"
	"io"

	"github.com/strata-project/strata/internal/fault"
)

// Bounds of a picture, which are those of a large monitor; QEMU's own are larger.
const (
	maxSide = 8192           // dots
	maxDots = 4096 * 4096    // dots in all
	maxFile = maxDots*3 + 64 // bytes: three for each dot, and what is said before them
	maxWord = 8              // digits of a number, and spaces before it
)

// decodePPM reads what QEMU writes: a PPM of type P6 with bytes. What follows the
// dots is not looked at. Source: netpbm, ppm(5). Kinds: Unable.
func decodePPM(r io.Reader) (*image.RGBA, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var magic [2]byte
	if _, err := io.ReadFull(in, magic[:]); err != nil || string(magic[:]) != "P6" {
		return nil, fault.Unablef("what QEMU gave is no picture")
	}
	var numbers [3]int
	for i := range numbers {
		n, err := ppmNumber(in)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	w, h, most := numbers[0], numbers[1], numbers[2]
	if w < 1 || h < 1 || w > maxSide || h > maxSide || w*h > maxDots || most != 0xff {
		return nil, fault.Unablef("a picture of %d by %d dots of %d shades cannot be taken", w, h, most+1).
			Help("at most %d dots of 256 shades, and %d on a side", maxDots, maxSide)
	}
	return ppmDots(in, w, h)
}

// ppmDots takes memory as the lines come, not as the header promises.
func ppmDots(in io.Reader, w, h int) (*image.RGBA, error) {
	line := make([]byte, w*3)
	dots := make([]byte, 0, w*4)
	for range h {
		if _, err := io.ReadFull(in, line); err != nil {
			return nil, fault.Unablef("the picture that QEMU gave ends early")
		}
		for rest := line; len(rest) > 0; rest = rest[3:] {
			dots = append(dots, rest[0], rest[1], rest[2], 0xff)
		}
	}
	return &image.RGBA{Pix: dots, Stride: w * 4, Rect: image.Rect(0, 0, w, h)}, nil
}

// ppmNumber reads spaces, a number, and the one space after it.
func ppmNumber(in io.ByteReader) (int, error) {
	for n, digits, spaces := 0, 0, 0; digits <= maxWord && spaces <= maxWord; {
		b, err := in.ReadByte()
		if err != nil {
			break
		}
		switch {
		case b >= '0' && b <= '9':
			n = n*10 + int(b-'0')
			digits++
		case b != ' ' && b != '\n':
			return 0, fault.Unablef("the sizes of the picture that QEMU gave cannot be read")
		case digits > 0:
			return n, nil
		default:
			spaces++
		}
	}
	return 0, fault.Unablef("the sizes of the picture that QEMU gave cannot be read")
}
