// Package engine joins templates, disks, networks, drivers and records into what
// the API offers: it makes, starts, watches, stops and removes environments, and
// makes the host and the records agree when a daemon starts.
//
// It is thin over mechanisms. What it stands on is in Options, as interfaces of
// its own where a test wants a stand-in (package enginetest).
//
// # Words
//
//	entry     one environment in memory: its record, its state, its run
//	run       what a driver's Start or Adopt gave, until its end is dealt with
//	op        the operation lock of an entry: one transition at a time
//	trash     what was removed and is still to be deleted
//	idle run  one without a main program, made to copy files of a stopped environment; after a
//	          look at a path it is kept for a moment, for the copy that follows
//
// States and the moves between them are package environment's; only entry.move
// makes one, and only by that table. Drivers report facts.
//
// # Who waits for whom
//
// Start, Pause, Resume, Rename, Update, Remove and copying from a stopped
// environment hold op, and wait for one another as long as the request's context
// lets them. Stop holds op only to note that the end was asked for, not during the
// grace: so a second stop with a shorter grace, a kill and rm --force get through.
// Stop waits for a start for its grace at most, and then has it given up, as one that
// comes before it.
// Start of what is stopping is a conflict. A stop or restart that has begun goes on
// when its client leaves; a start whose client leaves is undone.
// Remove with force kills the run, and ends a copy or a start before it waits.
// Who takes op for anything but files ends the idle run that is kept first.
// Move prepares without op, beside what runs, and is refused where anybody has it; it then
// holds op from the old run's end to the new one's start, so that stop and remove wait for
// the whole of it. A kill gets through and shortens the grace. See moving.go.
//
// # Goroutines
//
// One sampler for all (sampler.go), one watch for each run (supervise.go), one more
// where it has a health check or an init to boot, one for each wait of a restart
// policy, short ones for cleaning.
// All are counted by Engine.group, which Close waits for, and end with Engine.life.
//
// # Locks, in the order in which they are taken
//
//	entry.op       held over slow work; nothing of another entry is taken with it
//	entry.saving   held over one write of the record
//	Engine.mu      allocation of names, ids and ports; held over no slow work
//	entry.mu       the entry's fields; held over no slow work
//	hub.mu, ranges.mu, sampler.mu, Engine.going   leaves; ranges.mu is held over the making of
//	               one empty file in /run
//
// # What is on disk at each step, and what Open makes of it
//
// The daemon may be killed after any step. "Run" is whether a driver has anything
// of a run: live, over (its keeper wrote the exit down) or none.
//
//	step                          record.json           run        Open
//	create: claim ids, address    none                  none       claim is ours again or taken over
//	create: make folder, disk     folder without it     none       to the trash
//	create: write record          created               none       created
//	start: write record           starting              none       stopped, crash "the daemon ended while …"; policy
//	start: driver at work         starting              none/over  the same, cleaned; a driver undoes its own half
//	start: main program runs      starting              live       running
//	start: write record (later)   running               live       running
//	run ended, not dealt with     running               over       stopped with the keeper's exit; policy
//	run ended, cleaned            running               none       stopped, crash "its keeper was lost"; policy
//	end noted                     stopped | waiting     none       stopped | started again
//	stop: write record            stopping              live       stopped once more, with its grace
//	stop: it ended                stopping              over/none  stopped
//	restart, of these two         stopping, restarting  any        the same, and started
//	restart: end noted            stopped, restarting   none       started
//	remove: rename into trash     none (in the trash)   none       trash emptied
//	remove: deleting              part of it            none       trash emptied
//	rename: write record          either name           any        that name
//	update: write record          either spec           any        that spec (a grown disk stays grown)
//	copy from a stopped one       created | stopped     live       the idle run is killed and cleaned
//	move: write record            moving                live, old  the move goes on: it is stopped, and started at the new stratum
//	move: the old run ended       moving                over/none  cleaned; started at the new stratum
//	move: write record            moving, new stratum   none/over  the same
//	move: main program runs       moving, new stratum   live, new  the move has ended there
//	move: that start failed       moving, back          none/over  started at the old stratum
//	move: it runs again           moving, back          live, old  the move has ended there
//	move: write record            running, either       live       running
//	none                          none                  any        killed and cleaned
//	unreadable or newer record    as it is              any        left alone, with its run, and logged; what of its name,
//	                                                               ids, address, link, template and bases can be read is kept
//
// What is to be removed when it ends (AutoRemove) writes one record, at create, and
// none at its first start, so that `run --rm` pays for one: for it, "created" with something
// of a run means that it was started, since its folder goes to the trash before its
// run is cleaned. An idle run of such a one is told apart by the phase "copying".
//
//	run ended                     created               over       to the trash
//	in the trash, not cleaned     none (in the trash)   over       cleaned as a run without a record
//	after a reboot                created               none       to the trash
//
// A record that is moving is looked up at every stratum, whatever its phase. After a
// reboot such a one is at its old stratum, and has crashed there.
//
// After a reboot (state/boot has another boot id) nothing runs: what ran has
// crashed, and the policies on-failure, always and unless-stopped start it again;
// what stood still is started by always, and by unless-stopped where no user had
// stopped it. A mere restart of the daemon starts nothing that stood still.
//
// Order within Open: lock, records, names, id ranges and addresses reserved; then
// everything adopted or cleaned; then the network made to agree; only then does a
// restart policy start anything. The boot id is written last.
//
// # What it does not do
//
// It streams no bytes of a program: connections are handed to the driver. So it
// does not see a further program (exec) end, and there is no event for it.
package engine
