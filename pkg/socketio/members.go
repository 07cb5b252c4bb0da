package socketio

import (
	"cmp"
	"context"
	"slices"
)

// A Member is a socket as [Broadcast.Members] lists it.
type Member struct {
	ID   string `json:"id"`
	User string `json:"user"`
}

// Size returns the member's approximate size in its node's answer, in bytes.
func (m *Member) Size() int { return len(m.ID) + len(m.User) + memberBytes }

// memberBytes is the size of a member's JSON beside its id and its user.
const memberBytes = 24

// Members are a page of the sockets of a target.
type Members struct {
	Page  []Member // in the order of their ids
	More  bool     // there are others after the last one
	Count int      // number of all sockets of the target
	// Answered is the approximate size of the pages of all nodes, in bytes; Page is the beginning
	// of these pages. It is not encoded.
	Answered int `json:"-"`
}

// MembersBytes is the maximum size, in bytes, of a page of [Broadcast.Members]: 256 KiB. A
// single member may be larger.
const MembersBytes = 256 << 10

// Members lists the target's sockets, on any node of the cluster: those whose ids follow after,
// "" for the first ones, up to the size of a page. It transfers less between nodes than
// FetchSockets, which describes all sockets. It waits, and reports silent nodes, as FetchSockets
// does.
func (b Broadcast) Members(ctx context.Context, after string) (all Members, err error) {
	var pages []Members
	for a, e := range b.fetch(ctx, &membersAfter{after}) {
		if err = e; err != nil {
			break
		}
		if a.members == nil { // of a node of a release before 0.5.0
			a.members = &Members{Count: len(a.described)}
			for _, d := range a.described {
				a.members.Page = append(a.members.Page, Member{d.ID, d.User})
			}
			a.members.cut(after)
		}
		pages = append(pages, *a.members)
	}
	return mergeMembers(pages), err
}

// A membersAfter requests a page of members instead of descriptions of all.
type membersAfter struct {
	After string `json:"after,omitempty"`
}

// cut sorts the members, removes those whose ids do not follow an id, and leaves a page of the
// others.
func (m *Members) cut(after string) {
	m.Page = slices.DeleteFunc(m.Page, func(one Member) bool { return one.ID <= after })
	slices.SortFunc(m.Page, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	bytes := 0
	for i := range m.Page {
		if bytes += m.Page[i].Size(); bytes > MembersBytes && i > 0 {
			m.Page, m.More = m.Page[:i], true
			return
		}
	}
}

// mergeMembers returns the first page of several nodes' members. After the end of a page that is
// not its node's last, that node's members are unknown.
func mergeMembers(pages []Members) (all Members) {
	last := ""
	for _, p := range pages {
		all.Page = append(all.Page, p.Page...)
		all.Count += p.Count
		for i := range p.Page {
			all.Answered += p.Page[i].Size()
		}
		if !p.More || len(p.Page) == 0 {
			continue
		}
		if end := p.Page[len(p.Page)-1].ID; last == "" || end < last {
			last = end
		}
	}
	if last != "" {
		all.Page = slices.DeleteFunc(all.Page, func(one Member) bool { return one.ID > last })
		all.More = true
	}
	all.cut("")
	return all
}
