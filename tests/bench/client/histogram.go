package main

import "math/bits"

const (
	fineBits = 5 // values of one power of two fall into 32 buckets: 3 % apart
	buckets  = 40 << fineBits
)

// A histogram counts microseconds.
type histogram [buckets]int

func bucketOf(us int64) int {
	if us < 1<<fineBits {
		if us < 0 {
			us = 0
		}
		return int(us)
	}
	shift := bits.Len64(uint64(us)) - 1 - fineBits
	return shift<<fineBits + int(us>>uint(shift))
}

func (h *histogram) add(us int64, count int) { h[bucketOf(us)] += count }

// ms returns what the share (0…1) of the values do not pass, in milliseconds.
func (h *histogram) ms(share float64) float64 {
	total := 0
	for _, count := range h {
		total += count
	}
	wanted := int(share * float64(total-1))
	for index, count := range h {
		if wanted -= count; wanted < 0 {
			if index < 1<<fineBits {
				return float64(index) / 1000
			}
			shift := uint(index>>fineBits - 1)
			return float64((index-int(shift)<<fineBits+1)<<shift) / 1000
		}
	}
	return 0
}
