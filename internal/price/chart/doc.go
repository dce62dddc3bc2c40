// Package chart draws prices: bars for a terminal, and reports as one file of SVG or
// HTML that needs nothing else. It is pure: a price goes in, text comes out. What it
// is given may come from anywhere, so it is escaped.
package chart
