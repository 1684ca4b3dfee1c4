package grant

// FillOwner is fillOwner for the tests that ask over the network.
var FillOwner = (*Register).fillOwner
