package query

// Cursor returns where the feed begins, for who keeps a place before there is an Item.
// It is not to be asked once Items is ranged over.
func (f *Feed) Cursor() (string, error) { return f.r.marks.cursor(f.r.ctx, &f.r.at) }
