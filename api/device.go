package api

// Disk is a disk of a machine besides its own.
type Disk struct {
	Name   string `json:"name,omitempty" maxLength:"16" doc:"Given to it when it is attached, such as disk1."`
	File   string `json:"file" minLength:"1" maxLength:"4096" doc:"Absolute path on the host of its image, raw or qcow2, which is written to."`
	Format string `json:"format,omitempty" enum:"raw,qcow2" doc:"Of the image. Default: what it is by its content, which a raw disk without partitions does not tell."`
	Bus    string `json:"bus,omitempty" enum:"usb,virtio,nvme,ahci,ide,scsi" doc:"What it is plugged into: usb, virtio or nvme. Default: usb; virtio in a template's machine."`
}

// Card is a network card of a machine besides its own.
type Card struct {
	Name    string  `json:"name,omitempty" maxLength:"16" doc:"Given to it when it is attached, such as card1."`
	Model   string  `json:"model,omitempty" enum:"e1000,e1000e,rtl8139,virtio" doc:"What card it is: e1000e or virtio. Default: e1000e."`
	Address Address `json:"address" doc:"Its network; address and MAC are given to it."`
}
