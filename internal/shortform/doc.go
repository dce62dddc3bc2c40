// Package shortform reads what people write in one word where the API has a
// structure: published ports ("8080:80"), volumes ("./site:/srv:ro"), file systems in
// memory ("/tmp:size=64M") and restart policies ("on-failure:3"). The CLI's flags and
// environment files take the same forms.
//
// What is read is only whole in form: what an environment can have is the daemon's to
// say. The package is pure.
package shortform
